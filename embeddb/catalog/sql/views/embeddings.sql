-- Every embedding with its columns as they are called now: what workers and queries compose their SQL from.
CREATE OR REPLACE VIEW embeddb.embeddings AS
SELECT e.id, embeddb.name(e.id) AS name, n.nspname AS schema, c.relname AS "table", x.vector AS "column",
       x.keys, k.types AS key_types, x.sources, s.types AS source_types,
       r.config AS encoder, r.dim, r.fingerprint, r.id AS encoder_id,
       e.spec ->> 'metric' AS metric, e.spec ->> 'storage' AS storage, e.spec ->> 'mode' AS mode,
       e.state, e.spec, e.relation, e.registered_at
  FROM embeddb.embedding e
  JOIN pg_catalog.pg_class c ON c.oid = e.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN embeddb.encoder r ON r.id = e.encoder
 CROSS JOIN LATERAL embeddb.columns(e.id) AS x
 CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, -1) ORDER BY u.place) AS types
      FROM pg_catalog.unnest(x.keys) WITH ORDINALITY AS u (name, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = e.relation AND a.attname = u.name) AS k
 CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, NULL) ORDER BY u.place) AS types
      FROM pg_catalog.unnest(x.sources) WITH ORDINALITY AS u (name, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = e.relation AND a.attname = u.name) AS s;
COMMENT ON VIEW embeddb.embeddings IS 'Declared embeddings, by the names of today.';
