-- What the database says of vector indexes, and of those that are being built.

-- name: indexes
-- Every HNSW and IVFFlat index, or those over one table or column; those of partitions are told with the whole. Whoever
-- builds or reindexes holds a lock of the table's; a vacuum does too.
SELECT n.nspname AS schema, t.relname AS "table", a.columns, c.relname AS name, c.oid::pg_catalog.regclass::text AS place,
       m.amname AS method, o.opcname AS opclass, pg_catalog.pg_get_indexdef(c.oid, 1, true) AS expression,
       coalesce(c.reloptions, '{}') AS options, i.indisvalid AS valid, c.relkind = 'I' AS partitioned,
       coalesce((SELECT sum(pg_catalog.pg_relation_size(r.relid)) FROM pg_catalog.pg_partition_tree(c.oid) r),
                pg_catalog.pg_relation_size(c.oid))::bigint AS size,
       NOT i.indisvalid AND (NOT i.indislive OR c.relname ~ '_cc(new|old)[0-9]*$') AS leftover,
       EXISTS (SELECT FROM pg_catalog.pg_locks l
                WHERE l.locktype = 'relation' AND l.relation = t.oid AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted
                  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                                     WHERE d.datname = pg_catalog.current_database())) AS held
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
 CROSS JOIN LATERAL (
    SELECT ARRAY(SELECT DISTINCT x.attname::text FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_attribute x ON x.attrelid = d.refobjid AND x.attnum = d.refobjsubid
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid
                    AND d.refobjsubid > 0 ORDER BY 1) AS columns) AS a
 WHERE (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
   AND (%(table)s::text IS NULL OR t.relname = %(table)s)
   AND NOT (c.relispartition AND i.indisvalid)
   AND (%(column)s::text IS NULL OR %(column)s = ANY (a.columns))
 ORDER BY n.nspname, t.relname, c.relname;

-- name: builds
-- Builds that go on. HNSW counts blocks of the table; IVFFlat blocks, then tuples; a concurrent build also waits for
-- transactions, which are counted as lockers. 0 in total where Postgres does not say.
SELECT p.index_relid::pg_catalog.regclass::text AS place, p.phase, x.done, x.total, x.unit, p.tuples_done AS rows
  FROM pg_catalog.pg_stat_progress_create_index p
 CROSS JOIN LATERAL (
    SELECT p.lockers_done, p.lockers_total, 'transactions' WHERE p.phase LIKE 'waiting for%%'
    UNION ALL SELECT p.tuples_done, p.tuples_total, 'rows' WHERE p.phase NOT LIKE 'waiting for%%' AND p.tuples_total > 0
    UNION ALL SELECT p.blocks_done, p.blocks_total, 'blocks' WHERE p.phase NOT LIKE 'waiting for%%' AND p.tuples_total = 0
  ) AS x (done, total, unit)
 WHERE p.datname = pg_catalog.current_database() AND (%(pid)s::integer IS NULL OR p.pid = %(pid)s);
