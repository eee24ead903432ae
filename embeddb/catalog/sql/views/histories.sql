-- Per history: how many users have a vector, and whether triggers keep it up.
CREATE OR REPLACE VIEW embeddb.histories AS
SELECT h.name AS history, h.relation, h.events, n.rows, n.embedded, n.estimated, (h.spec ->> 'dim')::integer AS dim,
       (h.spec ->> 'half_life')::float8 AS half_life, h.spec ->> 'unit' AS unit,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger t
         WHERE t.tgrelid = h.events AND t.tgenabled <> 'D'
           AND h.spec -> 'triggers' ? t.tgname::text) = 4 AS kept_up,
       h.spec ->> 'compute' AS compute, h.spec
  FROM embeddb.history h
  JOIN pg_catalog.pg_class c ON c.oid = h.relation
  JOIN pg_catalog.pg_class e ON e.oid = h.events
 CROSS JOIN LATERAL embeddb.count_users(h.relation, (h.spec ->> 'column')::name) AS n;
COMMENT ON VIEW embeddb.histories IS 'Users, and users with a vector, per history; and whether triggers keep it up.';
