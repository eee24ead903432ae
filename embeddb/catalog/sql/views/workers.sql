-- Workers, and what they hold. One that has been silent for 30 seconds is taken for dead.
CREATE OR REPLACE VIEW embeddb.workers AS
SELECT w.id, w.host, w.pid, w.version, w.started_at, pg_catalog.clock_timestamp() - w.heartbeat_at AS silent,
       w.heartbeat_at > pg_catalog.clock_timestamp() - interval '30 seconds' AS alive, w.stopping, w.embedded, w.failed,
       (SELECT coalesce(pg_catalog.sum(pg_catalog.jsonb_array_length(j.keys)), 0)
          FROM embeddb.job j WHERE j.worker = w.id AND j.lease_until > pg_catalog.clock_timestamp()) AS holding
  FROM embeddb.worker w;
COMMENT ON VIEW embeddb.workers IS 'Running workers, their last sign of life, and how many rows they hold.';
