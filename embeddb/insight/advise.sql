-- What advice needs to know of a server and of a table.

-- name: server
-- Bytes to cache and to build with, workers of a build, and whether this role may make temporary tables here.
SELECT pg_size_bytes(coalesce(%(memory)s::text, current_setting('effective_cache_size'))) AS cache,
       %(memory)s::text IS NULL AND (SELECT source = 'default' FROM pg_catalog.pg_settings
                                      WHERE name = 'effective_cache_size') AS cache_is_default,
       pg_size_bytes(current_setting('shared_buffers')) AS buffers,
       pg_size_bytes(current_setting('maintenance_work_mem')) AS building,
       current_setting('max_parallel_maintenance_workers')::int AS workers,
       has_database_privilege(current_database(), 'TEMPORARY') AND NOT pg_is_in_recovery()
       AND NOT current_setting('default_transaction_read_only')::boolean AS temporary;

-- name: writes
-- Rows written since the statistics began, in all partitions: inserted, and those that every index had to follow.
SELECT coalesce(sum(s.n_tup_ins), 0)::bigint AS inserted,
       coalesce(sum(s.n_tup_upd - s.n_tup_hot_upd + s.n_tup_del), 0)::bigint AS changed,
       (SELECT extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time())) / 86400
          FROM pg_catalog.pg_stat_database d WHERE d.datname = current_database())::float8 AS days
  FROM pg_catalog.pg_stat_all_tables s
 WHERE s.relid = %(table)s::regclass OR s.relid IN (SELECT relid FROM pg_partition_tree(%(table)s::regclass));

-- name: filters
-- The other columns as ANALYZE saw them: how many values, the share of the commonest, whether an index begins with them.
SELECT DISTINCT ON (a.attnum) a.attname AS name, t.typcategory AS category, s.n_distinct AS distinct,
       s.null_frac AS nulls, coalesce(s.most_common_freqs[1], 0)::float8 AS common, s.correlation,
       EXISTS (SELECT FROM pg_catalog.pg_index i
                WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL) AS indexed
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  JOIN pg_catalog.pg_stats s ON (s.schemaname, s.tablename, s.attname) = (n.nspname, c.relname, a.attname)
 WHERE c.oid = %(table)s::regclass AND a.attname <> %(column)s AND a.attname <> ALL (%(sources)s)
 ORDER BY a.attnum, s.inherited DESC;

-- name: table
-- A table's rows as ANALYZE saw them, how it is partitioned (NULL where it is not), and whether a column stays in line.
SELECT greatest(c.reltuples, 0)::bigint AS rows, pg_get_partkeydef(c.oid) AS partitioned, a.attstorage = 'p' AS plain
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = %(column)s
 WHERE c.oid = %(table)s::regclass;

-- name: index
-- The vector index of a column, the plainest where there are several: for a column that nobody registered.
SELECT m.amname AS method, o.opcname AS opclass, pg_get_indexdef(i.indexrelid, 1, true) AS expression,
       coalesce(c.reloptions, '{}') AS options
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
  JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = %(column)s
 WHERE i.indrelid = %(table)s::regclass AND i.indisvalid AND i.indpred IS NULL
   AND (i.indkey[0] = a.attnum
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                      AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
 ORDER BY i.indkey[0] = 0, c.relname
 LIMIT 1;
