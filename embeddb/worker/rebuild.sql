-- Dropping and rebuilding vector indexes. Every statement that is made here is Postgres's own text or quoted by it.

-- name: note
-- Notes the vector indexes of embeddings; returns the name of each and the statement that drops it.
INSERT INTO embeddb.dropped_index (embedding, name, definition)
SELECT e.id, d.objid::pg_catalog.regclass::text, pg_catalog.pg_get_indexdef(d.objid)
  FROM embeddb.embedding e
  JOIN pg_catalog.pg_attribute a ON a.attrelid = e.relation AND a.attname = (embeddb.columns(e.id)).vector
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                             AND d.refobjid = e.relation AND d.refobjsubid = a.attnum
                             AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('i', 'I')
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
 WHERE e.id = ANY (%(embeddings)s)
ON CONFLICT (embedding, name) DO UPDATE SET definition = excluded.definition, dropped_at = now()
RETURNING name, 'DROP INDEX ' || name AS drop;

-- name: dropped
-- What was dropped and is not there, with the statement that builds it.
SELECT d.name, d.definition FROM embeddb.dropped_index d
 WHERE d.embedding = ANY (%(embeddings)s) AND pg_catalog.to_regclass(d.name) IS NULL
 ORDER BY d.name;

-- name: forget
-- They are there again.
DELETE FROM embeddb.dropped_index WHERE embedding = ANY (%(embeddings)s);
