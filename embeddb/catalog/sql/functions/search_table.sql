-- The functions that an embedding has beside its table: articles_search, articles_similar, articles_hybrid. They are
-- made with its triggers, and follow renames when those do. Their first line says whose they are.
--
-- They run with the rights of their caller. The first two set no search_path, for Postgres inlines only functions without
-- settings, and only so plans them with the values of a call; all names in them are qualified instead.

-- prefix_suffix within 63 bytes: of a longer prefix its beginning, and a hash of all.
CREATE OR REPLACE FUNCTION embeddb.fit_name(prefix text, suffix text) RETURNS name
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN octet_length(prefix) + octet_length(suffix) <= 62 THEN prefix || '_' || suffix
                ELSE (SELECT left(prefix, n) FROM generate_series(length(prefix), 0, -1) AS n
                       WHERE octet_length(left(prefix, n)) <= 53 - octet_length(suffix) LIMIT 1)
                     || '_' || left(md5(prefix), 8) || '_' || suffix END::name
$$;

-- `name`, or with so many underscores behind it that none of `taken` is called so.
CREATE OR REPLACE FUNCTION embeddb.free_name(name text, taken name[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.name FROM (SELECT free_name.name || repeat('_', i) AS name, i FROM generate_series(0, cardinality(taken)) AS i) AS n
     WHERE n.name::name <> ALL (taken) ORDER BY n.i LIMIT 1
$$;

-- How the body of an embedding's functions begins; a hash of the rest follows.
CREATE OR REPLACE FUNCTION embeddb.function_mark(embedding integer) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('-- embeddb %s, made anew by embeddb.refresh: ', embedding)
$$;

-- The functions that an embedding has. Others may begin theirs so too: only what the present role may drop counts.
CREATE OR REPLACE FUNCTION embeddb.functions_of(embedding integer) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid FROM pg_proc p
     WHERE starts_with(p.prosrc, embeddb.function_mark(embedding)) AND pg_has_role(p.proowner, 'USAGE')
$$;

-- Is there a function of that name that is not of this embedding, nor of another of its table?
CREATE OR REPLACE FUNCTION embeddb.is_taken(embedding integer, schema name, name name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                    WHERE p.proname = is_taken.name AND n.nspname = schema
                      AND NOT EXISTS (SELECT FROM embeddb.embedding o
                                       WHERE o.relation = (SELECT d.relation FROM embeddb.embedding d
                                                            WHERE d.id = is_taken.embedding)
                                         AND starts_with(p.prosrc, embeddb.function_mark(o.id))))
$$;

-- What full text search reads of a table's row, and its configuration: what a GIN or GiST index holds of the sources,
-- else a column of type tsvector that has such an index; without any, all text sources. NULL without a text source.
CREATE OR REPLACE FUNCTION embeddb.full_text(
    relation regclass, sources name[], OUT document text, OUT config text, OUT indexed boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made_from text;
BEGIN
    SELECT pg_get_indexdef(i.indexrelid, 1, false), coalesce(pg_get_expr(d.adbin, d.adrelid), ''), true
      INTO document, made_from, indexed
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am m ON m.oid = c.relam AND m.amname IN ('gin', 'gist')
      JOIN pg_opclass p ON p.oid = i.indclass[0] AND p.opcintype = 'tsvector'::regtype
      LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[0]
      LEFT JOIN pg_attrdef d ON d.adrelid = relation AND d.adnum = a.attnum AND a.attgenerated <> ''
     WHERE i.indrelid = relation AND i.indisvalid AND i.indpred IS NULL
     ORDER BY (SELECT count(*) FROM pg_depend p JOIN pg_attribute s ON s.attrelid = relation AND s.attnum = p.refobjsubid
                WHERE p.classid = 'pg_class'::regclass AND p.objid = i.indexrelid AND p.refobjid = relation
                  AND s.attname = ANY (sources)) DESC, c.relname
     LIMIT 1;
    IF document IS NULL THEN
        indexed := false;
        SELECT format('to_tsvector(%s)', string_agg(format('coalesce(t.%I::text, '''')', s.name), ' || E''\n'' || '
                                                     ORDER BY s.place))
          INTO document
          FROM unnest(sources) WITH ORDINALITY AS s (name, place)
          JOIN pg_attribute a ON a.attrelid = relation AND a.attname = s.name
          JOIN pg_type y ON y.oid = a.atttypid AND y.typcategory = 'S';
    END IF;
    config := coalesce(quote_literal(substring(document || made_from FROM '''([^'']+)''::regconfig')) || '::regconfig',
                       'get_current_ts_config()');
END $$;

-- How the names of an embedding's functions begin: with the table's name for the first that was registered; with the
-- table's and the column's where there are several, or where another function has the short name (`avoiding`).
CREATE OR REPLACE FUNCTION embeddb.function_prefixes(embedding integer, avoiding boolean DEFAULT true) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record;
    short boolean;
BEGIN
    SELECT n.nspname, r.relname, (embeddb.columns(d.id)).vector,
           NOT EXISTS (SELECT FROM embeddb.embedding o WHERE o.relation = d.relation
                          AND (o.registered_at, o.id) < (d.registered_at, d.id)) AS first,
           NOT EXISTS (SELECT FROM embeddb.embedding o WHERE o.relation = d.relation AND o.id <> d.id) AS alone
      INTO e
      FROM embeddb.embedding d JOIN pg_class r ON r.oid = d.relation JOIN pg_namespace n ON n.oid = r.relnamespace
     WHERE d.id = embedding;
    short := e.first AND NOT (
        avoiding AND (SELECT bool_or(embeddb.is_taken(embedding, e.nspname, embeddb.fit_name(e.relname, v)))
                        FROM unnest('{search,similar,hybrid}'::text[]) AS v));
    RETURN CASE WHEN short THEN ARRAY[e.relname::text] ELSE '{}' END
        || CASE WHEN short AND e.alone THEN '{}' ELSE ARRAY[e.relname || '_' || e.vector] END;
END $$;

-- The functions that an embedding should have: name, signature, and the statement that makes them. None where the
-- table's owner may make none in its schema.
CREATE OR REPLACE FUNCTION embeddb.wanted_functions(embedding integer)
RETURNS TABLE (schema name, name name, arguments text, result text, mark text, ddl text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record;
    c record := embeddb.columns(embedding);
    full_text record;
    keys integer := cardinality(c.keys);
    query_input text;
    count_input text;
    embedded text;
    key_inputs text;
    columns text;
BEGIN
    SELECT n.nspname, r.relname, r.oid::regclass AS relation, format('%I.%I', n.nspname, r.relname) AS target
      INTO e
      FROM embeddb.embedding d JOIN pg_class r ON r.oid = d.relation JOIN pg_namespace n ON n.oid = r.relnamespace
     WHERE d.id = embedding AND has_schema_privilege(r.relowner, n.oid, 'CREATE');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    full_text := embeddb.full_text(e.relation, c.sources);
    embedded := format('embeddb.embed(%L, $1)', concat_ws('.', e.nspname, e.relname, c.vector));
    SELECT string_agg(format('%I %s', CASE WHEN octet_length(k.name::text) > 60 THEN 'of_key_' || k.place
                                           ELSE 'of_' || k.name END, k.type), ', ' ORDER BY k.place),
           format('TABLE(%s, %I double precision, %I double precision)',
                  string_agg(format('%I %s', k.name, k.type), ', ' ORDER BY k.place),
                  embeddb.free_name('distance', c.keys), embeddb.free_name('score', c.keys)),
           string_agg('c' || k.place, ', ' ORDER BY k.place)
      INTO key_inputs, result, columns
      FROM embeddb.key_columns(e.relation, c.keys) AS k;
    query_input := format('%I text', embeddb.free_name('query', c.keys));
    count_input := format('%I integer DEFAULT 10', embeddb.free_name('k', c.keys));

    RETURN QUERY
    WITH body AS (
        SELECT 'search' AS verb, query_input AS inputs, '' AS settings,
               embeddb.search_sql(embedding, c.keys, embedded, '$2') AS body
        UNION ALL
        SELECT 'similar', key_inputs, '',
               embeddb.search_sql(
                   embedding, c.keys, format('SELECT o.%I FROM %s AS o WHERE %s', c.vector, e.target,
                                             embeddb.key_is_sql(e.relation, c.keys, 'o', p.parts)),
                   '$' || keys + 1, format('NOT (%s)', embeddb.key_is_sql(e.relation, c.keys, 't', p.parts)))
          FROM (SELECT array_agg('$' || i ORDER BY i) AS parts FROM generate_series(1, keys) AS i) AS p
        UNION ALL
        -- Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009), k = 60.
        SELECT 'hybrid', query_input, ' SET search_path = pg_catalog, pg_temp', format(
               'WITH candidates AS (SELECT GREATEST(50, 2 * LEAST($2, 1000000000)) AS n), '
               'near AS (SELECT x.*, row_number() OVER (ORDER BY x.distance) AS r FROM (%1$s) AS x), '
               'found AS (SELECT y.*, row_number() OVER (ORDER BY y.rank DESC, %2$s) AS r FROM ('
               'SELECT %3$s, ts_rank_cd(%4$s, websearch_to_tsquery(%5$s, $1)) AS rank FROM %6$s AS t'
               ' WHERE %4$s @@ websearch_to_tsquery(%5$s, $1) ORDER BY rank DESC LIMIT (SELECT n FROM candidates)) AS y) '
               'SELECT %2$s, max(u.distance), sum(1.0 / (60 + u.r))::float8 FROM ('
               'SELECT %2$s, distance, r FROM near UNION ALL SELECT %2$s, NULL, r FROM found) AS u'
               ' GROUP BY %2$s ORDER BY sum(1.0 / (60 + u.r)) DESC, max(u.distance), %2$s LIMIT $2',
               embeddb.search_sql(embedding, c.keys, embedded,
                                  'GREATEST(50, 2 OPERATOR(pg_catalog.*) LEAST($2, 1000000000))'), columns,
               (SELECT string_agg(format('t.%I AS c%s', k.name, k.place), ', ' ORDER BY k.place)
                  FROM unnest(c.keys) WITH ORDINALITY AS k (name, place)),
               full_text.document, full_text.config, e.target)
         WHERE full_text.document IS NOT NULL
    ), made AS (
        SELECT embeddb.fit_name(p.prefix, b.verb) AS called, b.inputs || ', ' || count_input AS arguments, b.settings, b.body,
               embeddb.function_mark(embedding) || md5(concat_ws(' ', b.inputs, count_input, result, b.settings, b.body)) AS mark
          FROM body b CROSS JOIN unnest(embeddb.function_prefixes(embedding)) AS p (prefix)
    )
    SELECT e.nspname, m.called, m.arguments, wanted_functions.result, m.mark,
           format('CREATE OR REPLACE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE sql STABLE ROWS 10%s AS %L',
                  e.nspname, m.called, m.arguments, wanted_functions.result, m.settings, m.mark || E'\n' || m.body)
      FROM made m;
END $$;

-- The functions that are missing, or are not as they should be. Each is looked up by its name: a join would read all of
-- pg_proc, and every start of an application comes by here.
CREATE OR REPLACE FUNCTION embeddb.missing_functions(embedding integer) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%I.%I', w.schema, w.name) FROM embeddb.wanted_functions(embedding) AS w
     WHERE (SELECT count(*) FROM pg_proc p
             WHERE p.proname = w.name AND p.pronamespace = to_regnamespace(quote_ident(w.schema))
               AND starts_with(p.prosrc, w.mark)) = 0
$$;

-- Makes the functions of an embedding as they should be now. What a view needs is replaced where it stands as long as its
-- signature does not change; else Postgres refuses, and names the view.
CREATE OR REPLACE FUNCTION embeddb.make_functions(embedding integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    w record;
BEGIN
    PERFORM embeddb.drop_functions(embedding, ARRAY(
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          JOIN embeddb.wanted_functions(embedding) AS x ON x.schema = n.nspname AND x.name = p.proname
         WHERE pg_get_function_arguments(p.oid) = x.arguments AND pg_get_function_result(p.oid) = x.result));
    FOR w IN SELECT * FROM embeddb.wanted_functions(embedding) LOOP
        IF embeddb.is_taken(embedding, w.schema, w.name) THEN
            RAISE EXCEPTION '%: there is a function %.% already, which is not embeddb''s',
                embeddb.name(embedding), quote_ident(w.schema), quote_ident(w.name)
                USING ERRCODE = 'EB001', HINT = 'Rename that function, or the column.';
        END IF;
        EXECUTE w.ddl;
    END LOOP;
    PERFORM embeddb.go_with_extension(embedding);
    IF embeddb.function_prefixes(embedding) <> embeddb.function_prefixes(embedding, false) THEN
        RAISE WARNING '%: another function has the short name, so this embedding''s are called %', embeddb.name(embedding),
            (SELECT string_agg(quote_ident(x.name), ', ') FROM embeddb.wanted_functions(embedding) AS x);
    END IF;
END $$;

-- Removes the functions of an embedding, but those in `kept`.
CREATE OR REPLACE FUNCTION embeddb.drop_functions(embedding integer, kept oid[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT format('DROP FUNCTION %s', f::regprocedure) FROM embeddb.functions_of(embedding) AS f
                      WHERE f <> ALL (kept) LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- The same for every embedding of a table, whose names depend on one another.
CREATE OR REPLACE FUNCTION embeddb.remake_functions(target regclass) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT embeddb.make_functions(e.id)
      FROM embeddb.embedding e JOIN pg_class r ON r.oid = e.relation
     WHERE e.relation = target
       AND (EXISTS (SELECT embeddb.missing_functions(e.id)) OR (SELECT count(*) FROM embeddb.functions_of(e.id))
            <> (SELECT count(*) FROM embeddb.wanted_functions(e.id)))
$$;
