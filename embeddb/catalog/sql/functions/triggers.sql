-- The triggers of an embedding, and the functions behind them.
--
--   insert    new rows whose vector is missing                    statement, transition table; row where it must be
--   update    sources changed and the vector did not              row, UPDATE OF sources WHEN …
--   unset     the vector was taken away                           row, UPDATE OF vector WHEN …
--   settle    both changed: the writer brought the vector         row, UPDATE OF sources WHEN …
--   key       the primary key changed: what was pending follows   row, UPDATE OF … WHEN …
--   move      the same into another partition, sources changed    row, BEFORE; partitioned tables only
--   clear     on_update = 'clear': the stale vector goes at once  row, BEFORE
--   delete    rows that are gone                                  statement, transition table
--   truncate  all of them gone                                    statement
--
-- A vector "is missing" where it is NULL and the sources are not blank; a vector of blank sources is as wrong, and is
-- queued too, so that the worker takes it away.
--
-- Partitioned tables: only row triggers are inherited by partitions, so INSERT has a row trigger there. A row that moves
-- to another partition fires DELETE and INSERT row triggers but no AFTER UPDATE, hence `move`, and hence `key` runs BEFORE.
--
-- UPDATE OF looks at the statement's column list. Where a BEFORE UPDATE trigger of someone else may change a source that
-- the statement does not name, the triggers are made without a list.
--
-- The conditions stand in WHEN, which Postgres keeps as a parse tree: it follows renames, costs no function call where
-- it is false, and compares sources by their stored image (record_image_ne), which works for every type, follows no
-- collation, and needs no operator that a restore might not find.
--
-- A function must name columns, and its text does not follow renames. So it first asks whether the columns that it
-- was written for are still called so, and if not, composes the statement anew (slower, the same effect) until
-- embeddb.refresh writes it again. Row triggers ask by an expression on every call; the INSERT trigger, on which most
-- depends, asks while its statement is planned, which Postgres does again after every change of the table. It uses only pg_catalog, the catalog, NEW, OLD and the transition tables: so the
-- writer needs no right in the catalog, and the catalog's owner none on the table.

-- Are these columns still called so in the table whose trigger runs? As an SQL expression without a query.
CREATE OR REPLACE FUNCTION embeddb.same_names_sql(relation regclass, names name[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('(pg_identify_object_as_address(1259, TG_RELID, %s)).object_names[3] = %L',
                             a.attnum, a.attname), E'\n           AND ' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = ANY (names)
$$;

-- Settings under which a key becomes the same JSON in every session, where its type's text depends on settings.
CREATE OR REPLACE FUNCTION embeddb.key_settings_sql(relation regclass, keys name[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN bool_and(coalesce(nullif(y.typbasetype, 0), y.oid) = ANY (
                    '{int2,int4,int8,numeric,oid,text,varchar,bpchar,uuid,bool,date}'::regtype[]))
                THEN '' ELSE ' SET timezone = ''UTC'' SET datestyle = ''ISO'' SET intervalstyle = ''postgres'''
                             ' SET bytea_output = ''hex'' SET extra_float_digits = 1' END
      FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
     WHERE a.attrelid = relation AND a.attname = ANY (keys)
$$;

-- The keys of a statement's new rows whose vector is missing, by today's names.
CREATE OR REPLACE FUNCTION embeddb.missing_sql(embedding integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT %s FROM new_rows AS n WHERE (n.%I IS NULL) <> %s', embeddb.key_sql(c.keys, 'n'), c.vector,
                  embeddb.blank_sql(e.relation, c.sources, 'n'))
      FROM embeddb.embedding e CROSS JOIN LATERAL embeddb.columns(e.id) AS c
     WHERE e.id = missing_sql.embedding
$$;

-- The statement that a trigger function runs, by today's names. `new` and `old` are how it calls the rows.
CREATE OR REPLACE FUNCTION embeddb.trigger_sql(
    embedding integer, event text, new text DEFAULT 'NEW', old text DEFAULT 'OLD'
) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE event
        WHEN 'insert' THEN format('SELECT embeddb.enqueue(%s, ARRAY(%s))', embedding, embeddb.missing_sql(embedding))
        WHEN 'delete' THEN format('SELECT embeddb.drop_jobs(%s, ARRAY(SELECT %s FROM old_rows AS o))',
                                  embedding, embeddb.key_sql(c.keys, 'o'))
        WHEN 'change' THEN format('INSERT INTO embeddb.job (embedding, keys) VALUES (%s, jsonb_build_array(%s))',
                                  embedding, embeddb.key_sql(c.keys, new))
        WHEN 'settle' THEN format('SELECT embeddb.drop_jobs(%s, ARRAY[%s])', embedding, embeddb.key_sql(c.keys, new))
        WHEN 'key' THEN format('SELECT embeddb.follow_key(%s, to_jsonb(%s), to_jsonb(%s))',
                               embedding, embeddb.key_sql(c.keys, new), embeddb.key_sql(c.keys, old))
        END
      FROM embeddb.columns(embedding) AS c
$$;

-- Are the columns of an embedding still called so? Declared IMMUTABLE so that a plan holds the answer as a constant. It
-- stays true as long as the plan lives, because a rename discards the plans of every statement over the table, and a
-- transition table counts as its table.
CREATE OR REPLACE FUNCTION embeddb.still_called(embedding integer, keys name[], sources name[], vector name) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (c.keys, c.sources, c.vector) IS NOT DISTINCT FROM (still_called.keys, still_called.sources, still_called.vector)
      FROM embeddb.columns(embedding) AS c
$$;

-- The body of the INSERT trigger's function. Statements of one row are the most frequent, and need not go the way of
-- many: so it looks for two keys first. The inner block writes nothing, so its subtransaction takes no number.
CREATE OR REPLACE FUNCTION embeddb.insert_body_sql(embedding integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($body$
DECLARE
    few jsonb;
BEGIN
    BEGIN
        few := (SELECT CASE WHEN embeddb.still_called(%1$s, %2$L, %3$L, %4$L)
                            THEN to_jsonb(ARRAY(%5$s LIMIT 2)) END);
    EXCEPTION WHEN undefined_column THEN
        few := NULL;
    END;
    IF few IS NULL THEN
        EXECUTE embeddb.trigger_sql(%1$s, 'insert');
    ELSIF jsonb_array_length(few) = 1 THEN
        INSERT INTO embeddb.job (embedding, keys) VALUES (%1$s, few);
    ELSIF jsonb_array_length(few) > 1 THEN
        PERFORM embeddb.enqueue(%1$s, ARRAY(%5$s));
    END IF;
    RETURN NULL;
END $body$, embedding, c.keys, c.sources, c.vector, embeddb.missing_sql(embedding))
      FROM embeddb.columns(embedding) AS c
$$;

-- The body of a row trigger's function, and of DELETE's. `body` runs while the columns in `named` are called as they are
-- now, `otherwise` after a rename.
CREATE OR REPLACE FUNCTION embeddb.row_body_sql(relation regclass, named name[], body text, otherwise text, result text)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($body$
BEGIN
    IF     %s
    THEN
        %s;
    ELSE
        %s;
    END IF;
    RETURN %s;
END $body$, embeddb.same_names_sql(relation, named), body, otherwise, result)
$$;

-- One trigger function of an embedding, as the statement that makes it.
CREATE OR REPLACE FUNCTION embeddb.trigger_function_sql(embedding integer, event text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c record := embeddb.columns(embedding);
    relation regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = trigger_function_sql.embedding);
    statement text := regexp_replace(embeddb.trigger_sql(embedding, event), '^SELECT', 'PERFORM');
    body text;
BEGIN
    CASE event
    WHEN 'truncate' THEN
        body := format('BEGIN PERFORM embeddb.drop_all_jobs(%s); RETURN NULL; END', embedding);
    WHEN 'insert' THEN
        body := embeddb.insert_body_sql(embedding);
    WHEN 'delete' THEN
        body := embeddb.row_body_sql(relation, c.keys, statement,
                                     format('EXECUTE embeddb.trigger_sql(%s, ''delete'')', embedding), 'NULL');
    WHEN 'clear' THEN
        body := embeddb.row_body_sql(
            relation, ARRAY[c.vector], format('NEW.%I := NULL', c.vector),
            format('NEW := jsonb_populate_record(NEW, jsonb_build_object((embeddb.columns(%s)).vector, NULL))', embedding),
            'NEW');
    ELSE
        body := embeddb.row_body_sql(
            relation, c.keys, statement,
            format('EXECUTE embeddb.trigger_sql(%s, %L, ''($1)'', ''($2)'') USING NEW%s', embedding, event,
                   CASE event WHEN 'key' THEN ', OLD' ELSE '' END),
            'NEW');
    END CASE;
    RETURN format('CREATE OR REPLACE FUNCTION embeddb.on_%s_%s() RETURNS trigger LANGUAGE plpgsql VOLATILE'
                  ' SECURITY DEFINER SET search_path = pg_catalog, pg_temp%s AS %L',
                  event, embedding, embeddb.key_settings_sql(relation, c.keys), body);
END $$;

-- Every table whose rows belong to an embedding: the table, its partitions, the tables that inherit from it.
CREATE OR REPLACE FUNCTION embeddb.tables_of(relation regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree AS (
        SELECT relation AS member
        UNION SELECT i.inhrelid::regclass FROM pg_inherits i JOIN tree ON i.inhparent = tree.member
    )
    SELECT member FROM tree
$$;

-- The embedding that a trigger function was made for, or NULL.
CREATE OR REPLACE FUNCTION embeddb.owner_of(function oid) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substring(p.proname from '^on_[a-z]+_(\d+)$')::integer
      FROM pg_proc p WHERE p.oid = function AND p.pronamespace = 'embeddb'::regnamespace
$$;

-- embeddb_<column>_<event>, within 63 bytes.
CREATE OR REPLACE FUNCTION embeddb.trigger_name(vector name, event text) RETURNS name
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('embeddb_%s_%s',
                  CASE WHEN octet_length(vector::text) + octet_length(event) <= 54 THEN vector::text
                       ELSE md5(vector::text) END, event)::name
$$;

-- Names without repetition, in the order of their first place: what key_at, source_at and vector_at count in.
CREATE OR REPLACE FUNCTION embeddb.distinct_names(names name[]) RETURNS name[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(name ORDER BY place)
      FROM (SELECT name, min(place) AS place FROM unnest(names) WITH ORDINALITY AS u (name, place) GROUP BY name) AS once
$$;

CREATE OR REPLACE FUNCTION embeddb.name_list_sql(names name[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%I', name), ', ' ORDER BY place) FROM unnest(names) WITH ORDINALITY AS u (name, place)
$$;

-- Did any of these columns change between OLD and NEW?
CREATE OR REPLACE FUNCTION embeddb.rows_differ_sql(names name[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('record_image_ne(ROW(%s), ROW(%s))',
                  string_agg(format('OLD.%I', name), ', ' ORDER BY place),
                  string_agg(format('NEW.%I', name), ', ' ORDER BY place))
      FROM unnest(names) WITH ORDINALITY AS u (name, place)
$$;

-- BEFORE UPDATE row triggers of others, which may change sources behind the statement's back.
CREATE OR REPLACE FUNCTION embeddb.meddlers(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT t.tgname
      FROM pg_trigger t
     WHERE t.tgrelid IN (SELECT embeddb.tables_of(relation)) AND NOT t.tgisinternal
       AND t.tgtype & 19 = 19  -- ROW, BEFORE, UPDATE
       AND embeddb.owner_of(t.tgfoid) IS NULL
$$;

-- The triggers that an embedding should have now.
CREATE OR REPLACE FUNCTION embeddb.wanted_triggers(
    embedding integer, OUT relation regclass, OUT name name, OUT function text, OUT ddl text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e embeddb.embedding;
    c record := embeddb.columns(embedding);
    partitioned boolean;
    alone boolean;
    virtual boolean;
    generated boolean;
    clears boolean;
    source_list text;
    vector_list text;
    key_list text;
    sources_differ text;
    vector_differs text;
    keys_differ text;
    missing text;
BEGIN
    SELECT * INTO STRICT e FROM embeddb.embedding x WHERE x.id = wanted_triggers.embedding;
    SELECT relkind = 'p' INTO partitioned FROM pg_class WHERE oid = e.relation;
    SELECT count(*) = 1 INTO alone FROM embeddb.tables_of(e.relation);
    SELECT bool_or(a.attgenerated = 'v'), bool_or(a.attgenerated <> '') INTO virtual, generated
      FROM pg_attribute a WHERE a.attrelid = e.relation AND a.attname = ANY (c.sources);
    clears := e.spec ->> 'on_update' = 'clear';

    sources_differ := embeddb.rows_differ_sql(c.sources);
    vector_differs := embeddb.rows_differ_sql(ARRAY[c.vector]);
    keys_differ := embeddb.rows_differ_sql(c.keys);
    missing := format('(NEW.%I IS NULL) <> %s', c.vector, embeddb.blank_sql(e.relation, c.sources, 'NEW'));
    key_list := ' OF ' || embeddb.name_list_sql(embeddb.distinct_names(c.keys || c.sources || c.vector));
    IF virtual OR EXISTS (SELECT embeddb.meddlers(e.relation)) THEN
        source_list := '';
        vector_list := '';
    ELSE
        source_list := ' OF ' || embeddb.name_list_sql(c.sources);
        -- Where the vector is cleared behind the statement's back, its list names the sources only.
        vector_list := ' OF ' || embeddb.name_list_sql(CASE WHEN clears THEN c.sources || c.vector ELSE ARRAY[c.vector] END);
    END IF;

    RETURN QUERY
    SELECT m.member, embeddb.trigger_name(c.vector, t.event), t.function,
           format('CREATE TRIGGER %I %s ON %s %s EXECUTE FUNCTION embeddb.on_%s_%s()',
                  embeddb.trigger_name(c.vector, t.event), t.moment, m.member, t.rest, t.function, e.id)
      FROM (VALUES
            ('insert', 'AFTER INSERT', format('FOR EACH ROW WHEN (%s)', missing),
             'change', partitioned OR virtual, false),
            ('insert', 'AFTER INSERT', 'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT',
             'insert', NOT (partitioned OR virtual), true),
            ('update', 'AFTER UPDATE' || source_list,
             format('FOR EACH ROW WHEN (%s AND NOT %s)', sources_differ, vector_differs),
             'change', true, NOT partitioned),
            ('unset', 'AFTER UPDATE' || vector_list,
             format('FOR EACH ROW WHEN (%s AND %s)', missing, vector_differs),
             'change', true, NOT partitioned),
            ('settle', 'AFTER UPDATE' || source_list,
             format('FOR EACH ROW WHEN (NEW.%I IS NOT NULL AND %s AND %s)', c.vector, vector_differs, sources_differ),
             'settle', true, NOT partitioned),
            ('key', CASE WHEN partitioned THEN 'BEFORE' ELSE 'AFTER' END || ' UPDATE' || key_list,
             format('FOR EACH ROW WHEN (%s)', keys_differ),
             'key', true, NOT partitioned),
            ('move', 'BEFORE UPDATE',
             -- A BEFORE trigger cannot see what a generated column will be: then every move of a row counts.
             format('FOR EACH ROW WHEN (%s AND %s NOT %s)', keys_differ,
                    CASE WHEN generated THEN '' ELSE sources_differ || ' AND' END, vector_differs),
             'change', partitioned, false),
            ('clear', 'BEFORE UPDATE' || source_list,
             format('FOR EACH ROW WHEN (OLD.%I IS NOT NULL AND %s AND NOT %s)', c.vector, sources_differ, vector_differs),
             'clear', clears, NOT partitioned),
            ('delete', 'AFTER DELETE', 'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT',
             'delete', true, true),
            -- TRUNCATE ONLY of a table that others inherit from leaves their rows, and so their jobs.
            ('truncate', 'AFTER TRUNCATE', 'FOR EACH STATEMENT',
             'truncate', partitioned OR alone, false)
           ) AS t (event, moment, rest, function, wanted, on_children)
     CROSS JOIN embeddb.tables_of(e.relation) AS m (member)
     WHERE t.wanted AND (m.member = e.relation OR t.on_children);
END $$;

-- The statements that make them: functions first.
CREATE OR REPLACE FUNCTION embeddb.trigger_ddl(embedding integer) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS MATERIALIZED (SELECT * FROM embeddb.wanted_triggers(embedding))
    SELECT ddl FROM (
        SELECT 1 AS place, embeddb.trigger_function_sql(embedding, function) AS ddl
          FROM (SELECT DISTINCT function FROM wanted) AS f
        UNION ALL
        SELECT 2, format('REVOKE ALL ON FUNCTION embeddb.on_%s_%s() FROM PUBLIC', function, embedding)
          FROM (SELECT DISTINCT function FROM wanted) AS f
        UNION ALL
        SELECT 3, ddl FROM wanted
    ) AS statements ORDER BY place, ddl
$$;

-- Removes the triggers and functions of an embedding, and notes its columns. Between disarm and refresh, in one
-- transaction, a column's type can be altered, which Postgres refuses while a trigger names the column.
CREATE OR REPLACE FUNCTION embeddb.disarm(embedding integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c record := embeddb.columns(embedding);
    statement text;
BEGIN
    UPDATE embeddb.embedding e
       SET built = NULL, columns = embeddb.distinct_names(c.keys || c.sources || c.vector)
     WHERE e.id = disarm.embedding;
    FOR statement IN
        SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
          FROM pg_trigger t WHERE embeddb.owner_of(t.tgfoid) = embedding AND t.tgparentid = 0
        UNION ALL
        SELECT format('DROP FUNCTION %s', p.oid::regprocedure)
          FROM pg_proc p WHERE p.pronamespace = 'embeddb'::regnamespace AND embeddb.owner_of(p.oid) = embedding
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- Makes the triggers of an embedding as they should be now, and its functions for searching. Where they are so already it
-- does nothing and takes no lock. Returns whether anything was made.
CREATE OR REPLACE FUNCTION embeddb.refresh(embedding integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text[] := ARRAY(SELECT embeddb.trigger_ddl(embedding));
    functions boolean := EXISTS (SELECT embeddb.missing_functions(embedding));
    statement text;
BEGIN
    IF functions THEN
        PERFORM embeddb.make_functions(embedding);
    END IF;
    IF md5(wanted::text) = (SELECT e.built FROM embeddb.embedding e WHERE e.id = refresh.embedding)
       AND NOT EXISTS (SELECT embeddb.trigger_problems(embedding)) THEN
        RETURN functions;
    END IF;
    PERFORM embeddb.disarm(embedding);
    FOREACH statement IN ARRAY wanted LOOP
        EXECUTE statement;
    END LOOP;
    UPDATE embeddb.embedding e SET built = md5(wanted::text) WHERE e.id = refresh.embedding;
    RETURN true;
END $$;

-- What stands between an embedding and its promise, in words; and what its table lacks for searching. SECURITY DEFINER, so
-- that workers may ask: it tells names alone.
CREATE OR REPLACE FUNCTION embeddb.problems(embedding integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM embeddb.embedding e JOIN pg_class c ON c.oid = e.relation WHERE e.id = problems.embedding) THEN
        RETURN NEXT 'its table is gone: call embeddb.unregister';
        RETURN;
    END IF;
    RETURN QUERY SELECT embeddb.trigger_problems(embedding);
    RETURN QUERY SELECT format('the function %s is missing, or is not as it should be: call embeddb.refresh', m)
                   FROM embeddb.missing_functions(embedding) AS m;
END $$;

-- Triggers that are missing, disabled or passed by.
CREATE OR REPLACE FUNCTION embeddb.trigger_problems(embedding integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = trigger_problems.embedding);
BEGIN
    -- Triggers keep their names when a column is renamed: count them by function, not by name. Of partitions only the
    -- statement triggers could be missing; without them the workers clear up.
    RETURN QUERY
    SELECT format('%s of %s triggers on %s are missing or disabled: call embeddb.refresh',
                  sum(greatest(w.wanted - coalesce(h.found, 0), 0)), sum(w.wanted), w.relation)
      FROM (SELECT x.relation, x.function, count(*) AS wanted
              FROM embeddb.wanted_triggers(embedding) x
             WHERE x.relation = target OR (SELECT c.relkind FROM pg_class c WHERE c.oid = target) = 'r'
             GROUP BY 1, 2) AS w
      LEFT JOIN (SELECT t.tgrelid, t.tgfoid, count(*) AS found FROM pg_trigger t
                  WHERE t.tgenabled IN ('O', 'A') GROUP BY 1, 2) AS h
        ON h.tgrelid = w.relation AND h.tgfoid = to_regprocedure(format('embeddb.on_%s_%s()', w.function, embedding))
     GROUP BY w.relation
    HAVING bool_or(w.wanted > coalesce(h.found, 0))
    UNION ALL
    SELECT format('trigger %I changes rows before they are stored, and came after the registration: '
                  'call embeddb.refresh', m)
      FROM embeddb.meddlers(target) AS m
     WHERE EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND cardinality(t.tgattr::int2[]) > 0
                      AND t.tgfoid = to_regprocedure(format('embeddb.on_change_%s()', embedding)));
END $$;
