-- The triggers of an embedding: which it should have, and how they are made. Their functions: trigger_functions.sql.
--
--   insert    new rows whose vector is missing                    statement, transition table; row where it must be
--   update    sources changed and the vector did not, unless      row, UPDATE OF sources WHEN …
--             it is NULL and they are blank
--   unset     the vector was taken away                           row, UPDATE OF vector WHEN …
--   settle    both named: the writer brought the vector           row, UPDATE OF sources WHEN …
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
-- the statement does not name, the triggers are made without a list; then `settle` asks for sources that changed.
--
-- The conditions stand in WHEN, which Postgres keeps as a parse tree: it follows renames, costs no function call where
-- it is false, and compares sources by their stored image (record_image_ne), which works for every type, follows no
-- collation, and needs no operator that a restore might not find.

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
    blank text;
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
    blank := embeddb.blank_sql(e.relation, c.sources, 'NEW');
    missing := format('(NEW.%I IS NULL) <> %s', c.vector, blank);
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
             format('FOR EACH ROW WHEN (%s AND NOT %s AND NOT (NEW.%I IS NULL AND %s))',
                    sources_differ, vector_differs, c.vector, blank),
             'change', true, NOT partitioned),
            ('unset', 'AFTER UPDATE' || vector_list,
             format('FOR EACH ROW WHEN (%s AND %s)', missing, vector_differs),
             'change', true, NOT partitioned),
            ('settle', 'AFTER UPDATE' || source_list,
             format('FOR EACH ROW WHEN (%s AND NOT (%s)%s)', vector_differs, missing,
                    CASE WHEN source_list = '' THEN ' AND ' || sources_differ ELSE '' END),
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

-- Where the catalog is an extension, what is made for a table is dropped with it: without it, it could only fail.
CREATE OR REPLACE FUNCTION embeddb.go_with_extension(embedding integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    routine regprocedure;
BEGIN
    IF EXISTS (SELECT FROM pg_extension x WHERE x.extname = 'embeddb') THEN
        FOR routine IN SELECT f FROM embeddb.functions_of(embedding) AS f
                        UNION SELECT p.oid FROM pg_proc p WHERE embeddb.owner_of(p.oid) = embedding LOOP
            EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION embeddb', routine);
        END LOOP;
    END IF;
END $$;

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
    PERFORM embeddb.go_with_extension(embedding);
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
