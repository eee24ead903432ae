-- Making and dropping jobs. Triggers call these; so may an owner by hand.

-- Queues rows by their keys: one job a row below 64 rows, else one job for every 256.
CREATE OR REPLACE FUNCTION embeddb.enqueue(embedding integer, keys anyarray, priority smallint DEFAULT 0)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total integer := cardinality(keys);
    size integer;
BEGIN
    IF total = 1 THEN
        INSERT INTO embeddb.job (embedding, priority, keys) VALUES (embedding, priority, to_jsonb(keys));
    ELSIF total > 1 THEN
        size := CASE WHEN total < 64 THEN 1 ELSE 256 END;
        INSERT INTO embeddb.job (embedding, priority, keys)
        SELECT enqueue.embedding, enqueue.priority, to_jsonb(enqueue.keys[i:i + size - 1])
          FROM generate_series(1, total, size) AS i;
    END IF;
END $$;

-- Rows that are gone, or were given their vector: their failures go, and jobs that are for one of them alone, as long as
-- fewer than 1,000 wait. No index finds a row's jobs, because every insert would pay for it: in a longer queue, and
-- inside larger jobs, such keys are dropped when they are claimed. Jobs that are locked just now are left as well.
-- Above READ COMMITTED a job that changed since the snapshot would fail the writer's transaction: there all is left.
CREATE OR REPLACE FUNCTION embeddb.drop_jobs(embedding integer, keys anyarray)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone jsonb[] := ARRAY(SELECT jsonb_array_elements(to_jsonb(keys)));
    alone bigint[];
BEGIN
    IF cardinality(keys) = 0 OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    SELECT array_agg(j.id) INTO alone
      FROM (SELECT x.id, x.keys FROM embeddb.job x WHERE x.embedding = drop_jobs.embedding LIMIT 1000) AS j
      JOIN unnest(gone) AS k (key) ON j.keys = jsonb_build_array(k.key);
    IF alone IS NOT NULL THEN
        DELETE FROM embeddb.job j
         WHERE j.id IN (SELECT x.id FROM embeddb.job x WHERE x.id = ANY (alone) FOR UPDATE SKIP LOCKED);
    END IF;
    DELETE FROM embeddb.failure f WHERE f.embedding = drop_jobs.embedding AND f.key = ANY (gone);
END $$;

-- The table was truncated.
CREATE OR REPLACE FUNCTION embeddb.drop_all_jobs(embedding integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        DELETE FROM embeddb.job j WHERE j.embedding = drop_all_jobs.embedding;
        DELETE FROM embeddb.failure f WHERE f.embedding = drop_all_jobs.embedding;
    END IF;
END $$;

-- Failures whose row is gone, which no trigger saw: a partition dropped or truncated, a delete at a higher isolation
-- level. Returns how many. Jobs need no such care, since claiming one finds out.
CREATE OR REPLACE FUNCTION embeddb.sweep(embedding integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c record := embeddb.columns(embedding);
    relation regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = sweep.embedding);
    total bigint;
BEGIN
    EXECUTE format('WITH gone AS (DELETE FROM embeddb.failure f WHERE f.embedding = $1 AND NOT EXISTS '
                   '(SELECT FROM %s AS n WHERE %s) RETURNING 1) SELECT count(*) FROM gone',
                   relation, embeddb.match_sql(relation, c.keys, 'n', 'f.key'))
       INTO total USING embedding;
    RETURN total;
END $$;

-- Is this row queued, or recorded as failed?
CREATE OR REPLACE FUNCTION embeddb.is_pending(embedding integer, key jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM embeddb.failure f WHERE f.embedding = is_pending.embedding AND f.key = is_pending.key)
        OR EXISTS (SELECT FROM embeddb.job j WHERE j.embedding = is_pending.embedding
                      AND j.keys @> jsonb_build_array(is_pending.key))
$$;

-- A row's key has changed: what was pending for it goes on under the new key, and a failure of the old one is no row's.
CREATE OR REPLACE FUNCTION embeddb.follow_key(embedding integer, new_key jsonb, old_key jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO embeddb.job (embedding, keys)
    SELECT follow_key.embedding, jsonb_build_array(new_key) WHERE embeddb.is_pending(embedding, old_key);
    IF current_setting('transaction_isolation') = 'read committed' THEN
        DELETE FROM embeddb.failure f WHERE f.embedding = follow_key.embedding AND f.key = old_key;
    END IF;
END $$;

-- Queues the rows that have no vector and neither job nor failure (or, with everything => true, all rows that have
-- something to embed), behind fresh rows. Returns how many. Calling it again queues nothing twice.
CREATE OR REPLACE FUNCTION embeddb.backfill(embedding text, everything boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found integer := embeddb.find(embedding);
    c record := embeddb.columns(found);
    relation regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = found);
    total bigint;
BEGIN
    EXECUTE format(
        'WITH pending AS MATERIALIZED ('
        '    SELECT f.key FROM embeddb.failure f WHERE f.embedding = $1'
        '    UNION SELECT jsonb_array_elements(j.keys) FROM embeddb.job j WHERE j.embedding = $1'
        '), missing AS ('
        '    SELECT to_jsonb(%1$s) AS key, row_number() OVER () / 256 AS part FROM %2$s AS n'
        '     WHERE CASE WHEN $2 THEN NOT %3$s ELSE (n.%4$I IS NULL) <> %3$s END'
        '       AND NOT EXISTS (SELECT FROM pending p WHERE p.key = to_jsonb(%1$s))'
        '), queued AS ('
        '    INSERT INTO embeddb.job (embedding, priority, keys)'
        '    SELECT $1, 10, jsonb_agg(key) FROM missing GROUP BY part RETURNING jsonb_array_length(keys) AS size'
        ') SELECT coalesce(sum(size), 0) FROM queued',
        embeddb.own_key_sql(relation, c.keys, 'n'), relation, embeddb.blank_sql(relation, c.sources, 'n'), c.vector)
    INTO total USING found, everything;
    RETURN total;
END $$;
