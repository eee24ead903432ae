-- Keeps what was measured, and lets searches know by the comment of the index, which its owner alone may write.
-- False, and nothing but the comment, where the embedding is not registered.
CREATE OR REPLACE FUNCTION embeddb.keep_recall(
    index regclass, vector name, comment text, setting text, k integer, target float8, effort integer, recall float8,
    queries integer, rows bigint
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of regclass := (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = keep_recall.index);
    found integer := (SELECT e.id FROM embeddb.embedding e
                       WHERE e.relation = of AND (embeddb.columns(e.id)).vector = keep_recall.vector);
BEGIN
    EXECUTE format('COMMENT ON INDEX %s IS %L', keep_recall.index, comment);
    IF found IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO embeddb.recall AS r
    VALUES (found, k, target, setting, effort, recall, queries, rows, comment, clock_timestamp())
    ON CONFLICT (embedding) DO UPDATE SET (k, target, setting, effort, recall, queries, rows, comment, measured_at)
        = (excluded.k, excluded.target, excluded.setting, excluded.effort, excluded.recall, excluded.queries,
           excluded.rows, excluded.comment, excluded.measured_at);
    RETURN true;
END $$;
