-- Storing the vectors that a model of histories was trained to, and giving cold rows those of their neighbours. Named
-- blocks, composed by embeddb.train.events.

-- name: schema
-- Where pgvector is.
SELECT n.nspname::text FROM pg_catalog.pg_extension AS x JOIN pg_catalog.pg_namespace AS n ON n.oid = x.extnamespace
 WHERE x.extname = 'vector';

-- name: stage
-- Keys with their new vectors.
CREATE TEMP TABLE embeddb_trained (embeddb_key {key_type} PRIMARY KEY, {columns}) ON COMMIT DROP;

-- name: analyze
-- So that they are joined well.
ANALYZE embeddb_trained;

-- name: neighbours
-- A row that the model does not know: the mean of the vectors of those nearest by content that it knows.
INSERT INTO embeddb_trained
SELECT c.{key}, m.* FROM {table} AS c
 CROSS JOIN LATERAL (
     SELECT {means} FROM (
         SELECT {new} FROM {table} AS o JOIN embeddb_trained AS n ON n.embeddb_key = o.{key}
          WHERE o.{content} IS NOT NULL AND n.{first} IS NOT NULL
          ORDER BY o.{content} OPERATOR({schema}.<=>) c.{content} LIMIT {neighbours}) AS n) AS m
 WHERE c.{content} IS NOT NULL AND m.{first} IS NOT NULL
   AND NOT EXISTS (SELECT FROM embeddb_trained AS n WHERE n.embeddb_key = c.{key});

-- name: update
-- One statement for all, so that a user's history is made anew once.
UPDATE {table} AS t SET {set}
  FROM (SELECT o.{key} AS embeddb_key, n.embeddb_key IS NOT NULL AS embeddb_known, {new}
          FROM {table} AS o LEFT JOIN embeddb_trained AS n ON n.embeddb_key = o.{key}) AS f
 WHERE t.{key} = f.embeddb_key AND (f.embeddb_known OR num_nonnulls({old}) > 0);

-- name: count
-- Rows that have a vector now.
SELECT count(*) FROM {table} AS t WHERE t.{first} IS NOT NULL;

-- name: drop
-- Another store may follow in this transaction.
DROP TABLE embeddb_trained;
