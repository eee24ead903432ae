-- Per embedding: how much is embedded, how much waits and for how long, what failed.
CREATE OR REPLACE VIEW embeddb.coverage AS
SELECT embeddb.name(e.id) AS embedding, n.rows, n.embedded, p.pending,
       (SELECT count(*) FROM embeddb.failure f WHERE f.embedding = e.id) AS failed,
       pg_catalog.clock_timestamp() - p.oldest AS oldest_pending, r.config ->> 'type' AS encoder,
       coalesce(r.config ->> 'model', r.config ->> 'name') AS model, r.dim, r.fingerprint, e.state,
       embeddb.index_valid(e.id) AS index_valid, n.estimated, r.wait_until, r.wait_reason,
       m.recall,
       CASE WHEN m.recall IS NOT NULL THEN m.rows * 2 < n.embedded OR NOT embeddb.recall_stands(e.id) END AS recall_stale,
       m.measured_at AS recall_measured_at,
       (f.agreement ->> 'cosine')::float8 AS fast_cosine, (f.agreement ->> 'nearest')::float8 AS fast_nearest
  FROM embeddb.embedding e
  JOIN pg_catalog.pg_class c ON c.oid = e.relation
  JOIN embeddb.encoder r ON r.id = e.encoder
  LEFT JOIN embeddb.recall m ON m.embedding = e.id
  LEFT JOIN embeddb.fast_encoder f ON f.encoder = r.id AND f.embedding = e.id AND f.fingerprint = r.fingerprint
 CROSS JOIN LATERAL embeddb.count_rows(e.id) AS n
 CROSS JOIN LATERAL embeddb.count_pending(e.id) AS p;
COMMENT ON COLUMN embeddb.coverage.recall_stale IS 'The rows have more than doubled since recall was measured, or the index was built anew: run embeddb recall.';
COMMENT ON COLUMN embeddb.coverage.fast_cosine IS 'How near what was distilled comes to the encoder: mean cosine on texts held out.';
COMMENT ON COLUMN embeddb.coverage.fast_nearest IS 'The same as the share of the ten nearest rows that both find.';
COMMENT ON VIEW embeddb.coverage IS 'Rows, embedded, pending and failed per embedding. rows and embedded are estimates above a million rows.';
