-- Searches under a filter, as nearest makes them in Python (embeddb.query.candidates, docs/decisions/filters.md): the planner
-- chooses between the index and reading the filter's matches, told of 24 times the rows, for it takes those that an index
-- scan passes over for cheaper than they are; and a scan that found too few rows, or went further than it may, is not
-- believed: then every match is read.

-- The index that serves searches of a vector column, or NULL.
CREATE OR REPLACE FUNCTION embeddb.vector_index(relation regclass, vector name) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.indexrelid::regclass
      FROM pg_attribute a
      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                      AND d.classid = 'pg_class'::regclass
      JOIN pg_index i ON i.indexrelid = d.objid AND i.indisvalid
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
     WHERE a.attrelid = relation AND a.attname = vector
     ORDER BY 1 LIMIT 1
$$;

-- The same statement as compose_search's, for a `condition` that may leave out many rows. Where nothing is fitted, the scan
-- looks for a recall of .99 (embeddb.orm.effort).
CREATE OR REPLACE FUNCTION embeddb.compose_filtered(
    embedding integer, spec jsonb, relation regclass, held name, carried name[], vector text, k text, condition text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    index CONSTANT regclass := embeddb.vector_index(relation, held);
    coarse CONSTANT boolean := embeddb.is_coarse(spec);
    of_row CONSTANT text := format('t.%I', held);
    distance CONSTANT text := embeddb.distance_sql(spec, of_row, '(SELECT q.v FROM q)');
    -- Candidates that the index has to yield.
    wanted CONSTANT text := embeddb.candidates_sql(embedding, spec, k, 50);
    -- Rows that a scan may give: see FAR in embeddb.query.candidates.
    far CONSTANT text := format(
        'GREATEST(pg_catalog.sqrt(0.1 OPERATOR(pg_catalog.*) %s OPERATOR(pg_catalog.*) %s), 2.0 OPERATOR(pg_catalog.*) %1$s)',
        wanted, coalesce((SELECT nullif(greatest(c.reltuples, 0), 0) FROM pg_class c WHERE c.oid = index), 1e6));
    passed CONSTANT text := format('COALESCE(pg_catalog.pg_stat_get_xact_tuples_returned(%s), 0)', index::oid);
    matches text;
    columns text;
    carried_on text;
BEGIN
    IF index IS NULL OR nullif(spec -> 'index', 'null') IS NULL THEN
        RETURN embeddb.compose_search(embedding, spec, relation::text, held, carried, vector, k, condition);
    END IF;
    SELECT string_agg(format('t.%I AS c%s', u.name, u.place), ', ' ORDER BY u.place),
           string_agg('s.c' || u.place, ', ' ORDER BY u.place)
      INTO columns, carried_on
      FROM unnest(carried) WITH ORDINALITY AS u (name, place);
    matches := format('SELECT %s, %s AS distance FROM %s AS t WHERE %s IS NOT NULL AND (SELECT q.v FROM q) IS NOT NULL AND (%s)',
                      columns, distance, relation, of_row, condition);
    RETURN format(
        'WITH q AS MATERIALIZED (SELECT (%s)::%I.%s(%s) AS v, b.passed, b.far FROM (SELECT %s AS passed, %s AS far OFFSET 0) AS b'
        ' WHERE %s),',
        vector, embeddb.pgvector_schema(), spec ->> 'storage', spec ->> 'dim', passed, far,
        embeddb.scan_settings_sql(embedding, spec, wanted, 'b.far'))
    || format(
        ' scanned AS MATERIALIZED (%s ORDER BY %s LIMIT %s),'
        ' found AS MATERIALIZED (SELECT * FROM scanned LIMIT %s),'
        ' failed AS MATERIALIZED (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.<) %4$s'
        '     OR %s OPERATOR(pg_catalog.-) (SELECT q.passed FROM q) OPERATOR(pg_catalog.>) (SELECT q.far FROM q) AS yes FROM found)',
        matches,
        CASE WHEN coarse THEN embeddb.coarse_distance_sql(spec, of_row, '(SELECT q.v FROM q)') ELSE 'distance' END,
        format(CASE WHEN coarse THEN 'GREATEST(1000, 240::pg_catalog.int8 OPERATOR(pg_catalog.*) %s)'
                    ELSE '24::pg_catalog.int8 OPERATOR(pg_catalog.*) %s' END, k),
        wanted, passed)
    || format(
        ' SELECT %s, s.distance, %s AS score FROM ('
        ' SELECT * FROM found WHERE NOT (SELECT failed.yes FROM failed)'
        ' UNION ALL SELECT * FROM (%s AND (SELECT failed.yes FROM failed) ORDER BY %s OPERATOR(pg_catalog.+) 0 LIMIT %s) AS x'
        ') AS s ORDER BY s.distance OPERATOR(pg_catalog.+) 0 LIMIT %5$s',
        carried_on, embeddb.score_sql(spec, 's.distance'), matches, '(' || distance || ')', k);
END $$;
