-- Clusters of rows by their vectors, in SQL alone.

-- k-means (Lloyd 1982) over at most `sample` rows: the key of each, the number of its cluster, from 1 for the largest, and
-- the distance to the cluster's centre, by the metric. For l2 and l1 a centre is a mean, and nearest by l2; for the others
-- rows are clustered by direction ("spherical k-means", Dhillon and Modha 2001).
-- The first centres are those of k-means++ (Arthur and Vassilvitskii 2007). Rows are drawn by a hash of their key and
-- `seed`, so the same table gives the same clusters. Fewer than `n` clusters where there are fewer different vectors.
CREATE OR REPLACE FUNCTION embeddb.cluster(
    embedding text, n integer, sample integer DEFAULT 5000, rounds integer DEFAULT 20, seed bigint DEFAULT 0
) RETURNS TABLE (key jsonb, cluster integer, distance float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record := embeddb.described(embedding);
    spherical CONSTANT boolean := e.spec ->> 'metric' NOT IN ('l2', 'l1');
    row_keys jsonb[];
    points @extschema:vector@.vector[];
    centres @extschema:vector@.vector[];
    chosen integer[];
    before integer[];
BEGIN
    IF (n >= 1 AND sample >= 1 AND rounds >= 1 AND seed IS NOT NULL) IS NOT TRUE THEN
        RAISE EXCEPTION 'clusters, sample and rounds are at least 1, and seed is a number' USING ERRCODE = 'EB005';
    END IF;
    EXECUTE format(
        'SELECT array_agg(s.key ORDER BY s.key), array_agg(s.v ORDER BY s.key) FROM ('
        '    SELECT to_jsonb(%s) AS key, t.%I::@extschema:vector@.vector AS v FROM %s AS t WHERE t.%I IS NOT NULL'
        '     ORDER BY hashtextextended(to_jsonb(%1$s)::text, $1) LIMIT $2) AS s',
        embeddb.key_sql(e.keys, 't'), e.vector, e.relation, e.vector)
        INTO row_keys, points USING seed, sample;
    IF points IS NULL THEN
        RETURN;
    ELSIF spherical THEN
        points := ARRAY(SELECT @extschema:vector@.l2_normalize(u.p) FROM unnest(points) WITH ORDINALITY AS u (p, i) ORDER BY u.i);
    END IF;
    centres := embeddb.first_centres(points, n, seed);
    FOR round IN 1 .. rounds LOOP
        chosen := embeddb.nearest_centres(points, centres);
        EXIT WHEN chosen = before;
        before := chosen;
        centres := ARRAY(
            SELECT CASE WHEN spherical AND @extschema:vector@.vector_norm(m.mean) > 0
                        THEN @extschema:vector@.l2_normalize(m.mean) ELSE m.mean END
              FROM (SELECT u.c, @extschema:vector@.avg(u.p) AS mean FROM unnest(chosen, points) AS u (c, p) GROUP BY u.c) AS m
             ORDER BY m.c);
    END LOOP;
    chosen := embeddb.nearest_centres(points, centres);
    RETURN QUERY
    SELECT u.key, r.number::integer,
           CASE e.spec ->> 'metric'
                WHEN 'cosine' THEN u.p OPERATOR(@extschema:vector@.<=>) centres[u.c]
                WHEN 'l2' THEN u.p OPERATOR(@extschema:vector@.<->) centres[u.c]
                WHEN 'l1' THEN u.p OPERATOR(@extschema:vector@.<+>) centres[u.c]
                ELSE u.p OPERATOR(@extschema:vector@.<#>) centres[u.c] END
      FROM unnest(row_keys, points, chosen) AS u (key, p, c)
      JOIN (SELECT k.c, row_number() OVER (ORDER BY count(*) DESC, k.c) AS number FROM unnest(chosen) AS k (c) GROUP BY k.c) AS r
        ON r.c = u.c
     ORDER BY 2, 3, 1;
END $$;

-- For every point the place of the centre that is nearest to it.
CREATE OR REPLACE FUNCTION embeddb.nearest_centres(
    points @extschema:vector@.vector[], centres @extschema:vector@.vector[]
) RETURNS integer[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT (SELECT c.i::integer FROM unnest(centres) WITH ORDINALITY AS c (c, i)
                 ORDER BY u.p OPERATOR(@extschema:vector@.<->) c.c, c.i LIMIT 1)
          FROM unnest(points) WITH ORDINALITY AS u (p, i) ORDER BY u.i)
$$;

-- The first centres: a point, then again and again one that is drawn in proportion to its squared distance to those before.
-- Drawn are the least of -ln(u) / weight, u being a hash (Efraimidis and Spirakis 2006): no state, the same every time.
CREATE OR REPLACE FUNCTION embeddb.first_centres(points @extschema:vector@.vector[], n integer, seed bigint)
RETURNS @extschema:vector@.vector[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    centres @extschema:vector@.vector[] := points[1:1];
    apart float8[] := array_fill('Infinity'::float8, ARRAY[cardinality(points)]);
    next integer;
BEGIN
    FOR number IN 2 .. n LOOP
        apart := ARRAY(SELECT least(u.d, (u.p OPERATOR(@extschema:vector@.<->) centres[number - 1]) ^ 2)
                         FROM unnest(apart, points) WITH ORDINALITY AS u (d, p, i) ORDER BY u.i);
        SELECT u.i INTO next FROM unnest(apart) WITH ORDINALITY AS u (d, i)
         WHERE u.d > 0
         ORDER BY -ln(((hashtextextended(u.i || ' ' || number, seed) & 4503599627370495) + 1) / 4503599627370497.0::float8) / u.d
         LIMIT 1;
        EXIT WHEN next IS NULL;
        centres := centres || points[next];
    END LOOP;
    RETURN centres;
END $$;
