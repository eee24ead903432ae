-- The functions behind an embedding's triggers, as the statements that make them.
--
-- A function must name columns, and its text does not follow renames. So it first asks whether the columns that it
-- was written for are still called so, and if not, composes the statement anew (slower, the same effect) until
-- embeddb.refresh writes it again. Row triggers ask by an expression on every call; the INSERT trigger, on which most
-- depends, asks while its statement is planned, which Postgres does again after every change of the table. It uses
-- only pg_catalog, the catalog, NEW, OLD and the transition tables: so the writer needs no right in the catalog, and
-- the catalog's owner none on the table.

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
    SELECT format('SELECT %s FROM new_rows AS n WHERE (n.%I IS NULL) <> %s', embeddb.own_key_sql(e.relation, c.keys, 'n'), c.vector,
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
                                  embedding, embeddb.own_key_sql(e.relation, c.keys, 'o'))
        WHEN 'change' THEN format('INSERT INTO embeddb.job (embedding, keys) VALUES (%s, jsonb_build_array(%s))',
                                  embedding, embeddb.own_key_sql(e.relation, c.keys, new))
        WHEN 'settle' THEN format('SELECT embeddb.drop_jobs(%s, ARRAY[%s])', embedding, embeddb.own_key_sql(e.relation, c.keys, new))
        WHEN 'key' THEN format('SELECT embeddb.follow_key(%s, to_jsonb(%s), to_jsonb(%s))',
                               embedding, embeddb.own_key_sql(e.relation, c.keys, new), embeddb.own_key_sql(e.relation, c.keys, old))
        END
      FROM embeddb.embedding e CROSS JOIN LATERAL embeddb.columns(e.id) AS c WHERE e.id = trigger_sql.embedding
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
