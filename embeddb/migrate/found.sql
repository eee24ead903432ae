-- What migrations read of a database.

-- name: embeddings
-- Registrations by today's names; of one whose encoder is being changed also how far that is.
SELECT v.schema, v."table", v."column", v.sources, v.spec::text AS spec, r.state, s."column" AS shadow,
       s.sources AS shadow_sources, r.spec::text AS next,
       r.state = 'filling' AND (embeddb.count_pending(r.shadow)).pending = 0
       AND (EXISTS (SELECT FROM embeddb.vector_indexes(r.shadow)) OR NOT EXISTS (SELECT FROM embeddb.vector_indexes(v.id)))
       AS ready,
       ARRAY(SELECT embeddb.problems(v.id)) AS problems
  FROM embeddb.embeddings v
  LEFT JOIN embeddb.reembedding r ON r.serving = v.id
  LEFT JOIN embeddb.embeddings s ON s.id = r.shadow
 ORDER BY v.schema, v."table", v.registered_at, v.id;

-- name: embeddings_of_older
-- The same of a catalog that is behind this package: what every version of it has.
SELECT v.schema, v."table", v."column", v.sources, v.spec::text AS spec, NULL AS state, '{}'::text[] AS problems
  FROM embeddb.embeddings v
 ORDER BY v.schema, v."table", v."column";

-- name: indexes
-- The vector indexes of a table, each with all that makes it what it is.
SELECT c.relname AS name, m.amname AS method, i.indisvalid AS valid, i.indkey[0] = 0 AS is_expression,
       coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), NULL) AS "where",
       coalesce(c.reloptions, '{}') AS options,
       (SELECT a.attname::text FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
           AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0
         ORDER BY a.atttypid IN (SELECT oid FROM pg_catalog.pg_type WHERE typname IN ('vector', 'halfvec', 'bit', 'sparsevec'))
                  DESC, d.refobjsubid LIMIT 1) AS "column",
       ARRAY(SELECT pg_catalog.pg_get_indexdef(c.oid, k, true)
               FROM pg_catalog.generate_series(1, i.indnatts) AS k ORDER BY k) AS expressions,
       ARRAY(SELECT o.opcname::text FROM pg_catalog.unnest(i.indclass::oid[]) WITH ORDINALITY AS u (id, k)
               JOIN pg_catalog.pg_opclass o ON o.oid = u.id ORDER BY k) AS opclasses
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE t.relname = :table
   AND (n.nspname = :schema OR :schema = 'pg_temp' AND n.oid = pg_catalog.pg_my_temp_schema());

-- name: partitioned
-- Is a table partitioned? Its indexes cannot be built concurrently.
SELECT EXISTS (SELECT FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
                WHERE t.relname = :table AND n.nspname = :schema AND t.relkind = 'p');

-- name: histories
-- What was declared of every registered history whose tables are there.
SELECT h.spec FROM embeddb.history h
  JOIN pg_catalog.pg_class c ON c.oid = h.relation
  JOIN pg_catalog.pg_class e ON e.oid = h.events;
