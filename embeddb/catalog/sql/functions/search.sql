-- Searches over any embedding by its name, for those who would rather pass it than call the functions beside its table.
-- They run with the rights of their caller. Values travel as parameters; names are looked up in the table's catalog.

-- The rows nearest to a text. `filter`: a JSON object of columns, each with a value (equal to it), null, a list (equal to
-- one of them), or an object of comparisons: {"year": {">=": 1950, "<": 1960}, "kind": ["note", "paper"]}.
CREATE OR REPLACE FUNCTION embeddb.search(
    embedding text, query text, k integer DEFAULT 10, filter jsonb DEFAULT NULL
) RETURNS TABLE (key jsonb, distance float8, score float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record := embeddb.described(embedding);
BEGIN
    RETURN QUERY EXECUTE format('SELECT %s, n.distance, n.score FROM (%s) AS n', e.key,
        CASE WHEN k >= 0 AND (filter IS NOT NULL OR row_security_active(e.relation)) THEN
            embeddb.compose_filtered(e.id, e.spec, e.relation, e.vector, e.keys, 'embeddb.embed($1, $2)', '$3',
                                     coalesce(embeddb.filter_sql(e.relation, filter, '$4'), 'true'))
        ELSE
            embeddb.compose_search(e.id, e.spec, e.relation::text, e.vector, e.keys, 'embeddb.embed($1, $2)', '$3',
                                   embeddb.filter_sql(e.relation, filter, '$4'))
        END)
        USING embedding, query, k, filter;
END $$;

-- The rows nearest to the row with the key `of_key` (17, or for a composite key [1, 17]), which is not among them.
CREATE OR REPLACE FUNCTION embeddb.neighbors(
    embedding text, of_key jsonb, k integer DEFAULT 10, filter jsonb DEFAULT NULL
) RETURNS TABLE (key jsonb, distance float8, score float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record := embeddb.described(embedding);
    c text := concat_ws(' AND ', format('NOT (%s)', embeddb.match_sql(e.relation, e.keys, 't', '$1')),
                        embeddb.filter_sql(e.relation, filter, '$3'));
BEGIN
    -- The row itself is one that is passed over, no filter.
    RETURN QUERY EXECUTE format('SELECT %s, n.distance, n.score FROM (%s) AS n', e.key,
        CASE WHEN k >= 0 AND (filter IS NOT NULL OR row_security_active(e.relation)) THEN
            embeddb.compose_filtered(e.id, e.spec, e.relation, e.vector, e.keys, embeddb.vector_of_sql(e.id, '$1'), '$2', c)
        ELSE
            embeddb.compose_search(e.id, e.spec, e.relation::text, e.vector, e.keys, embeddb.vector_of_sql(e.id, '$1'), '$2', c)
        END)
        USING of_key, k, filter;
END $$;

-- Pairs of rows that are at most `threshold` apart, each once, the nearest first. Of every row its `k` nearest are looked at.
CREATE OR REPLACE FUNCTION embeddb.duplicates(embedding text, threshold float8, k integer DEFAULT 10)
RETURNS TABLE (key jsonb, other jsonb, distance float8, score float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE embeddb.duplicates_sql(embedding) USING threshold, k;
END $$;

-- Its statement. SECURITY DEFINER, as all that compose: they read names alone, and run nothing.
CREATE OR REPLACE FUNCTION embeddb.duplicates_sql(embedding text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(
        'WITH s AS MATERIALIZED (SELECT true AS made%s)'
        ' SELECT x.one, x.two, min(x.distance), %s FROM ('
        '     SELECT LEAST(a.key, n.key) AS one, GREATEST(a.key, n.key) AS two, n.distance'
        '       FROM (SELECT to_jsonb(%3$s) AS key, %4$s AS v FROM %5$s AS t'
        '              WHERE %4$s IS NOT NULL AND (SELECT s.made FROM s)) AS a'
        '      CROSS JOIN LATERAL (%6$s) AS n'
        '      WHERE n.distance <= $1 AND n.key <> a.key) AS x'
        ' GROUP BY x.one, x.two ORDER BY 3, 1, 2',
        ' WHERE ' || embeddb.scan_settings_sql(e.id, e.spec, '(LEAST($2, 1000000000) + 1)'),
        embeddb.score_sql(e.spec, 'min(x.distance)'), embeddb.key_sql(e.keys, 't'), v.held, e.relation,
        embeddb.nearest_sql(e.id, e.spec, e.relation::text, v.held, format('to_jsonb(%s) AS key', embeddb.key_sql(e.keys, 't')),
                            'a.v', '(LEAST($2, 1000000000) + 1)', v.held || ' IS NOT NULL'))
      FROM embeddb.described(embedding) AS e CROSS JOIN LATERAL (SELECT format('t.%I', e.vector) AS held) AS v
$$;

-- What the `k` rows nearest to a text have in the column `label`: each value with its votes, their share, and the distance
-- of the nearest; the most votes first. Rows without a label have no vote.
CREATE OR REPLACE FUNCTION embeddb.classify(embedding text, label text, query text, k integer DEFAULT 10)
RETURNS TABLE (value text, votes bigint, share float8, distance float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record := embeddb.described(embedding);
BEGIN
    RETURN QUERY EXECUTE embeddb.votes_sql(e.id, embeddb.column_of(e.relation, label), 'embeddb.embed($1, $2)', '$3')
        USING embedding, query, k;
END $$;

-- The same for a row, which has no vote itself.
CREATE OR REPLACE FUNCTION embeddb.classify(embedding text, label text, of_key jsonb, k integer DEFAULT 10)
RETURNS TABLE (value text, votes bigint, share float8, distance float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record := embeddb.described(embedding);
BEGIN
    RETURN QUERY EXECUTE embeddb.votes_sql(e.id, embeddb.column_of(e.relation, label), embeddb.vector_of_sql(e.id, '$1'), '$2',
                                           format('NOT (%s)', embeddb.match_sql(e.relation, e.keys, 't', '$1')))
        USING of_key, k;
END $$;

CREATE OR REPLACE FUNCTION embeddb.votes_sql(
    embedding integer, label name, vector text, k text, condition text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT n.c1::text, count(*), count(*) / sum(count(*)) OVER ()::float8, min(n.distance) FROM (%s) AS n'
                  ' GROUP BY n.c1::text ORDER BY 2 DESC, 4',
                  embeddb.search_sql(embedding, ARRAY[label], vector, k,
                                     concat_ws(' AND ', format('t.%I IS NOT NULL', label), condition)))
$$;

-- What the functions here compose their statements of: an embedding with its table, columns and specification, and its key
-- as JSON by the columns c1, c2, …
CREATE OR REPLACE FUNCTION embeddb.described(
    embedding text, OUT id integer, OUT relation regclass, OUT keys name[], OUT vector name, OUT spec jsonb,
    OUT key text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    named bigint;
BEGIN
    -- As embeddb.find has it, with everything else by the same look: every search begins here.
    SELECT e.id, e.relation, x.keys, x.vector, e.spec, count(*) OVER () INTO id, relation, keys, vector, spec, named
      FROM embeddb.embedding e
     CROSS JOIN LATERAL (SELECT r.relname, n.nspname FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
                          WHERE r.oid = e.relation LIMIT 1) c
     CROSS JOIN LATERAL embeddb.columns(e.id) x
     WHERE strpos(described.embedding, c.relname || '.') > 0
       AND described.embedding IN (c.relname || '.' || x.vector, c.nspname || '.' || c.relname || '.' || x.vector);
    IF named IS DISTINCT FROM 1 THEN
        -- Which says what is wrong.
        PERFORM embeddb.find(embedding);
    END IF;
    key := format('to_jsonb(%s)', embeddb.key_sql(
        ARRAY(SELECT ('c' || i)::name FROM generate_series(1, cardinality(keys)) AS i), 'n'));
END $$;

-- The vector of the row whose key the JSON expression `key` holds.
CREATE OR REPLACE FUNCTION embeddb.vector_of_sql(embedding integer, key text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT o.%I FROM %s AS o WHERE %s', c.vector, e.relation, embeddb.match_sql(e.relation, c.keys, 'o', key))
      FROM embeddb.embedding e CROSS JOIN LATERAL embeddb.columns(e.id) AS c
     WHERE e.id = embedding
$$;

-- The column of that name, or an error that lists what there is.
CREATE OR REPLACE FUNCTION embeddb.column_of(relation regclass, name text) RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found name := (SELECT a.attname FROM pg_attribute a
                    WHERE a.attrelid = relation AND a.attname::text = name AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION '% has no column %', relation, quote_ident(name)
            USING ERRCODE = 'EB005', HINT = format('It has: %s.', (
                SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
                 WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
    END IF;
    RETURN found;
END $$;
