-- What an explanation reads from the database beside a plan. Parameters are SQLAlchemy's, :name.

-- name: vector_indexes
-- pgvector's indexes on the tables named, and those named themselves by schema and name. A partition's index counts as
-- one of the partitioned table's.
SELECT n.nspname, i.relname, coalesce(r.relname, t.relname), a.amname, o.opcname, x.indisvalid, greatest(t.reltuples, 0)::bigint
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
LEFT JOIN pg_catalog.pg_class r ON r.oid = pg_catalog.pg_partition_root(t.oid)
JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
JOIN pg_catalog.pg_am a ON a.oid = i.relam AND a.amname IN ('hnsw', 'ivfflat')
JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[0]
WHERE x.indrelid = ANY (SELECT pg_catalog.to_regclass(name) FROM unnest(CAST(:tables AS text[])) name)
   OR (n.nspname, i.relname) IN (SELECT * FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])))
ORDER BY i.relname;

-- name: prefer_indexes
-- For the present savepoint, plans that read or sort all rows are dear.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true);
