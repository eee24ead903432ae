-- Rows that could not be embedded. A key and an error may hold what is in the row: they show only to those who may
-- read the key and the sources of every row, so not where row security applies to them.
CREATE OR REPLACE VIEW embeddb.failures AS
SELECT embeddb.name(e.id) AS embedding, CASE WHEN s.readable THEN f.key END AS key, f.step,
       CASE WHEN s.readable THEN f.error END AS error, f.attempts, f.failed_at
  FROM embeddb.failure f
  JOIN embeddb.embedding e ON e.id = f.embedding
  JOIN pg_catalog.pg_class c ON c.oid = e.relation
 CROSS JOIN LATERAL embeddb.columns(e.id) AS x
 CROSS JOIN LATERAL (
    SELECT NOT pg_catalog.row_security_active(c.oid)
           AND pg_catalog.bool_and(pg_catalog.has_column_privilege(c.oid, u.name::text, 'SELECT')) AS readable
      FROM pg_catalog.unnest(x.keys OPERATOR(pg_catalog.||) x.sources) AS u (name)) AS s;
COMMENT ON VIEW embeddb.failures IS 'Rows that could not be embedded, at which step and why.';
