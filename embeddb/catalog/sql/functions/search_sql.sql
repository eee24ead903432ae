-- The pieces that searches in SQL are composed of. What search_sql composes runs under the caller's search_path, so that
-- Postgres can inline the functions around it: every name in it is qualified.

-- How far a scan looks: ef_search, probes or candidates. `usual`, unless embeddb recall fitted a figure to the embedding's
-- rows: that stands in the comment of its index, where searches in Python find it too (embeddb.orm.effort).
CREATE OR REPLACE FUNCTION embeddb.effort(embedding integer, wanted integer, usual integer) RETURNS integer
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    said text := (
        SELECT s.description
          -- The inner OFFSET: through the table's number. Joined freely, all of pg_index would be read. The outer one: few
          -- indexes have such a comment, and whose it is takes longest to tell.
          FROM (SELECT e.id, e.relation, d.objoid, d.description
                  FROM embeddb.embedding e
                 CROSS JOIN LATERAL (SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = e.relation OFFSET 0) i
                  JOIN pg_description d ON d.objoid = i.indexrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
                 WHERE e.id = effort.embedding AND d.description LIKE 'embeddb recall@%' OFFSET 0) s
         WHERE EXISTS (SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = s.relation AND a.attnum = d.refobjsubid
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = s.objoid AND d.refobjid = s.relation
                          AND a.attname = (embeddb.columns(s.id)).vector)
         LIMIT 1);
BEGIN
    RETURN coalesce(
        ceil(substring(said FROM ' default=([0-9]+)')::float8
             * least(1e5, greatest(1, wanted / substring(said FROM '^embeddb recall@([0-9]+)')::float8)))::integer, usual);
END $$;

-- The settings of a scan that is to yield `wanted` rows, as conditions that are true. The same as those that searches in
-- Python bring along. `far`: under a filter, how many rows a scan may give.
CREATE OR REPLACE FUNCTION embeddb.scan_settings_sql(embedding integer, spec jsonb, wanted text, far text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT string_agg(format('pg_catalog.set_config(%L, %s, true) IS NOT NULL', s.name, s.value), ' AND ')
          FROM (SELECT least(l.lists, ceil(CASE WHEN far IS NULL THEN 3 ELSE 6 END * sqrt(l.lists)))::integer AS probes
                  FROM (SELECT (spec -> 'index' ->> 'lists')::integer AS lists) AS l) AS i
         CROSS JOIN LATERAL (VALUES
                ('hnsw', 'hnsw.ef_search', format(
                    'LEAST(1000, %s)::pg_catalog.text',
                    CASE WHEN embeddb.is_coarse(spec)
                         THEN CASE WHEN far IS NULL THEN embeddb.candidates_sql(embedding, spec, wanted, 20) ELSE wanted END
                         ELSE format('embeddb.effort(%1$s, %2$s, GREATEST(%3$s, %4$s OPERATOR(pg_catalog.*) LEAST(%2$s, 500)))',
                                     embedding, wanted, CASE WHEN far IS NULL THEN 64 ELSE 200 END,
                                     CASE WHEN far IS NULL THEN 2 ELSE 4 END) END)),
                ('hnsw', 'hnsw.iterative_scan', quote_literal(CASE WHEN far IS NULL THEN 'strict_order' ELSE 'relaxed_order' END)),
                ('hnsw', 'hnsw.max_scan_tuples',
                 CASE WHEN far IS NULL THEN quote_literal('2147483647')
                      ELSE format('LEAST(2147483647, pg_catalog.ceil(5 OPERATOR(pg_catalog.*) %s))::pg_catalog.int4::pg_catalog.text',
                                  far) END),
                ('ivfflat', 'ivfflat.probes',
                 CASE WHEN embeddb.is_coarse(spec) THEN quote_literal(i.probes)
                      ELSE format('LEAST(32768, embeddb.effort(%s, %s, %s))::pg_catalog.text', embedding, wanted, i.probes) END),
                ('ivfflat', 'ivfflat.iterative_scan', quote_literal('relaxed_order'))
               ) AS s (method, name, value)
         WHERE s.method = spec -> 'index' ->> 'method');
END $$;

-- What an embedding's index holds of the vector `vector`: itself, its copy in half precision, its first dimensions, its
-- signs. As embeddb.orm.index_expression has it, for an expression index serves the same expression alone.
CREATE OR REPLACE FUNCTION embeddb.indexed_sql(spec jsonb, vector text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    index CONSTANT jsonb := nullif(spec -> 'index', 'null');
    place text;
    kind CONSTANT text := CASE WHEN 'halfvec' IN (index ->> 'cast', spec ->> 'storage') THEN 'halfvec' ELSE 'vector' END;
    result text := vector;
BEGIN
    IF index ->> 'prefix' IS NULL AND index ->> 'cast' IS NULL THEN
        RETURN result;
    END IF;
    place := quote_ident(embeddb.pgvector_schema());
    IF index ->> 'prefix' IS NOT NULL THEN
        result := format('%1$s.subvector(%2$s, 1, %3$s)::%1$s.%4$s(%3$s)', place, result, index ->> 'prefix', kind);
    ELSIF index ->> 'cast' = 'halfvec' THEN
        result := format('%s::%s.halfvec(%s)', result, place, spec ->> 'dim');
    END IF;
    IF index ->> 'cast' = 'binary' THEN
        result := format('%s.binary_quantize(%s)::pg_catalog.bit(%s)', place, result,
                         coalesce(index ->> 'prefix', spec ->> 'dim'));
    END IF;
    RETURN result;
END $$;

-- Does the index hold less than the column? Then it yields candidates only, which the column ranks.
CREATE OR REPLACE FUNCTION embeddb.is_coarse(spec jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN coalesce(spec -> 'index' ->> 'prefix' IS NOT NULL OR spec -> 'index' ->> 'cast' = 'binary', false);
END $$;

-- The distance of two vector expressions by an embedding's metric, as its index has it where that is fine enough.
CREATE OR REPLACE FUNCTION embeddb.distance_sql(spec jsonb, one text, other text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN format('%s OPERATOR(%I.%s) %s', CASE WHEN embeddb.is_coarse(spec) THEN one ELSE embeddb.indexed_sql(spec, one) END,
                  embeddb.pgvector_schema(),
                  CASE spec ->> 'metric' WHEN 'cosine' THEN '<=>' WHEN 'l2' THEN '<->' WHEN 'inner_product' THEN '<#>'
                                         WHEN 'l1' THEN '<+>' END,
                  CASE WHEN embeddb.is_coarse(spec) THEN other ELSE embeddb.indexed_sql(spec, other) END);
END $$;

-- What an index orders by that only yields candidates.
CREATE OR REPLACE FUNCTION embeddb.coarse_distance_sql(spec jsonb, one text, other text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN format('%s OPERATOR(%I.%s) %s', embeddb.indexed_sql(spec, one), embeddb.pgvector_schema(),
                  CASE WHEN spec -> 'index' ->> 'cast' = 'binary' THEN '<~>' WHEN spec ->> 'metric' = 'cosine' THEN '<=>'
                       WHEN spec ->> 'metric' = 'l2' THEN '<->' WHEN spec ->> 'metric' = 'l1' THEN '<+>' ELSE '<#>' END,
                  embeddb.indexed_sql(spec, other));
END $$;

-- The metric's own figure of the distance `distance`: larger is nearer.
CREATE OR REPLACE FUNCTION embeddb.score_sql(spec jsonb, distance text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN format(CASE spec ->> 'metric' WHEN 'cosine' THEN '1 OPERATOR(pg_catalog.-) %s'
                                         WHEN 'l2' THEN '1 OPERATOR(pg_catalog./) (1 OPERATOR(pg_catalog.+) %s)'
                                         WHEN 'l1' THEN '1 OPERATOR(pg_catalog./) (1 OPERATOR(pg_catalog.+) %s)'
                                         WHEN 'inner_product' THEN 'OPERATOR(pg_catalog.-) %s' END, distance);
END $$;

-- The rows of `target` (as t) that are nearest to the vector expression `vector`, at most `k`: `columns` and `distance`.
CREATE OR REPLACE FUNCTION embeddb.nearest_sql(
    embedding integer, spec jsonb, target text, held text, columns text, vector text, k text, condition text
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN embeddb.is_coarse(spec) THEN
        format('SELECT x.*, %s AS distance FROM (SELECT %s, %s AS held FROM %s AS t WHERE %s ORDER BY %s LIMIT %s) AS x'
               ' ORDER BY distance LIMIT %s', embeddb.distance_sql(spec, 'x.held', vector), columns, held, target, condition,
               embeddb.coarse_distance_sql(spec, held, vector), embeddb.candidates_sql(embedding, spec, k, 20), k)
    ELSE
        format('SELECT %s, %s AS distance FROM %s AS t WHERE %s ORDER BY distance LIMIT %s',
               columns, embeddb.distance_sql(spec, held, vector), target, condition, k)
    END;
END $$;

-- How many rows the index has to yield for `k`: unfitted, `each` for each of them, and more where it holds the signs of few
-- dimensions (embeddb.orm.effort).
CREATE OR REPLACE FUNCTION embeddb.candidates_sql(embedding integer, spec jsonb, k text, each integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bits CONSTANT float8 := CASE WHEN spec -> 'index' ->> 'cast' = 'binary'
                                 THEN coalesce(spec -> 'index' ->> 'prefix', spec ->> 'dim') END;
BEGIN
    RETURN CASE WHEN embeddb.is_coarse(spec)
                THEN format('embeddb.effort(%1$s, %2$s, GREATEST(100, %3$s OPERATOR(pg_catalog.*) LEAST(%2$s, 4000000)))',
                            embedding, k, each * least(5, greatest(1, ceil((256 / bits) ^ 1.5))))
                ELSE k END;
END $$;

-- A statement that yields the rows nearest to the vector expression `vector`, at most `k` of them, the nearest first:
-- columns c1, c2, … of `carried`, then distance and score. `condition` is a filter about row t. No row where the vector is
-- NULL. The vector is computed once, and with it the settings of the scan are made, to the end of the transaction. `spec`,
-- the table `target` and the column `held` are the embedding's.
CREATE OR REPLACE FUNCTION embeddb.compose_search(
    embedding integer, spec jsonb, target text, held name, carried name[], vector text, k text, condition text
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_row CONSTANT text := format('t.%I', held);
    columns text;
    carried_on text;
BEGIN
    SELECT string_agg(format('t.%I AS c%s', u.name, u.place), ', ' ORDER BY u.place),
           string_agg('s.c' || u.place, ', ' ORDER BY u.place)
      INTO columns, carried_on
      FROM unnest(carried) WITH ORDINALITY AS u (name, place);
    RETURN format(
        'WITH q AS MATERIALIZED (SELECT (%s)::%I.%s(%s) AS v%s)'
        ' SELECT %s, s.distance, %s AS score FROM (%s) AS s ORDER BY s.distance OPERATOR(pg_catalog.+) 0',
        vector, embeddb.pgvector_schema(), spec ->> 'storage', spec ->> 'dim',
        ' WHERE ' || embeddb.scan_settings_sql(embedding, spec, k), carried_on,
        embeddb.score_sql(spec, 's.distance'),
        embeddb.nearest_sql(embedding, spec, target, of_row, columns, '(SELECT q.v FROM q)', k,
                            concat_ws(' AND ', of_row || ' IS NOT NULL', '(SELECT q.v FROM q) IS NOT NULL',
                                      '(' || condition || ')')));
END $$;

-- The same for an embedding that is not looked up yet.
CREATE OR REPLACE FUNCTION embeddb.search_sql(
    embedding integer, carried name[], vector text, k text, condition text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT embeddb.compose_search(e.id, e.spec, format('%I.%I', n.nspname, r.relname), (embeddb.columns(e.id)).vector,
                                  carried, vector, k, condition)
      FROM embeddb.embedding e JOIN pg_class r ON r.oid = e.relation JOIN pg_namespace n ON n.oid = r.relnamespace
     WHERE e.id = search_sql.embedding
$$;
