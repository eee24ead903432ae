-- Per embedding: how much is embedded, how much waits and for how long, what failed.
CREATE OR REPLACE VIEW embeddb.coverage AS
SELECT embeddb.name(e.id) AS embedding, n.rows, n.embedded, p.pending,
       (SELECT count(*) FROM embeddb.failure f WHERE f.embedding = e.id) AS failed,
       pg_catalog.clock_timestamp() - p.oldest AS oldest_pending, r.config ->> 'type' AS encoder,
       coalesce(r.config ->> 'model', r.config ->> 'name') AS model, r.dim, r.fingerprint, e.state,
       embeddb.index_valid(e.id) AS index_valid, n.estimated, r.wait_until, r.wait_reason
  FROM embeddb.embedding e
  JOIN pg_catalog.pg_class c ON c.oid = e.relation
  JOIN embeddb.encoder r ON r.id = e.encoder
 CROSS JOIN LATERAL embeddb.count_rows(e.id) AS n
 CROSS JOIN LATERAL embeddb.count_pending(e.id) AS p;
COMMENT ON VIEW embeddb.coverage IS 'Rows, embedded, pending and failed per embedding. rows and embedded are estimates above a million rows.';
