-- Every statement of the queue, in named blocks. Identifiers in braces are composed by embeddb.queue.target from the
-- embedding's columns as they are now; %(names)s are parameters. All run at READ COMMITTED.
--
-- What holds the promise together:
--   1. A trigger inserts the job in the transaction that changed the row: a visible change has a visible job.
--   2. `read` runs after `claim` has seen the job, so it reads that change or a later one.
--   3. `write` takes the row's lock before it compares the sources' hash, so a change either came before (the hash
--      differs, nothing is written, the key stays queued) or waits until after (it makes a newer job).
--   4. A job goes away only when every key of it was written, is gone from the table, or is recorded as failed.
-- Workers never wait for a writer, neither for its rows nor for jobs that its DELETE is dropping: what is locked is
-- skipped. A skipped row stays queued; a skipped job is gone when the writer commits, or its lease runs out. So no
-- deadlock can arise.

-- name: register_worker
-- A new worker's row.
INSERT INTO embeddb.worker (host, pid, version) VALUES (%(host)s, %(pid)s, %(version)s) RETURNING id;

-- name: heartbeat
-- A sign of life, with the totals so far; and the leases that are still worked on are made longer.
WITH alive AS (
    UPDATE embeddb.worker
       SET heartbeat_at = clock_timestamp(), embedded = %(embedded)s, failed = %(failed)s, stopping = %(stopping)s
     WHERE id = %(worker)s
)
UPDATE embeddb.job SET lease_until = clock_timestamp() + %(lease)s
 WHERE id IN (SELECT id FROM embeddb.job WHERE id = ANY (%(jobs)s) AND worker = %(worker)s FOR UPDATE SKIP LOCKED);

-- name: leave
-- A worker goes: its row, and the leases it still holds, return at once.
WITH released AS (
    UPDATE embeddb.job SET lease_until = NULL, worker = NULL, attempts = attempts - 1
     WHERE id IN (SELECT id FROM embeddb.job WHERE id = ANY (%(jobs)s) AND worker = %(worker)s FOR UPDATE SKIP LOCKED)
)
DELETE FROM embeddb.worker WHERE id = %(worker)s;

-- name: bury
-- Rows of workers that have been silent for long. Their leases run out by themselves.
DELETE FROM embeddb.worker WHERE heartbeat_at < clock_timestamp() - %(silent)s;

-- name: targets
-- The embeddings with what their statements are composed of. `name` NULL means all.
SELECT v.id, v.name, v.schema, v."table", v."column", v.keys, v.key_types, v.sources, v.source_types, v.dim,
       v.storage, v.state, v.fingerprint, v.spec::text AS spec, y.oid::bigint AS vector_oid, y.typarray::bigint AS array_oid,
       n.nspname AS type_schema,
       embeddb.match_sql(v.relation, v.keys, 't', 'k.key') AS match
  FROM embeddb.embeddings v
  JOIN pg_catalog.pg_attribute a ON a.attrelid = v.relation AND a.attname = v."column"
  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
  JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
 WHERE %(name)s::text IS NULL OR v.id = embeddb.find(%(name)s)
 ORDER BY v.name;

-- name: session
-- Settings under which a source has one text, and so one hash, in every worker's session; and the isolation level that
-- all statements here are written for, whatever the database's default.
SELECT set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
       set_config('intervalstyle', 'postgres', false), set_config('bytea_output', 'hex', false),
       set_config('extra_float_digits', '1', false), set_config('jit', 'off', false),
       set_config('default_transaction_isolation', 'read committed', false);

-- name: claim
-- Leases up to `jobs` ready jobs of one embedding, oldest and most urgent first, but only as many as hold about
-- `rows` keys (the first is always taken). Counts the attempt. SKIP LOCKED lets workers pass each other; a lease that
-- ran out makes a dead worker's job ready again. Nothing is claimed while the encoder is told to wait.
WITH ready AS MATERIALIZED (
    SELECT j.id, j.ctid AS spot, j.priority, j.not_before, jsonb_array_length(j.keys) AS size
      FROM embeddb.job j
     WHERE j.embedding = %(embedding)s AND j.not_before <= statement_timestamp()
       AND (j.lease_until IS NULL OR j.lease_until < statement_timestamp())
       AND (SELECT e.state = 'active' AND (c.wait_until IS NULL OR c.wait_until <= statement_timestamp())
              FROM embeddb.embedding e JOIN embeddb.encoder c ON c.id = e.encoder WHERE e.id = %(embedding)s)
     ORDER BY j.priority, j.not_before
     LIMIT %(jobs)s
       FOR UPDATE OF j SKIP LOCKED
), counted AS (
    SELECT spot, sum(size) OVER (ORDER BY priority, not_before, id) - size AS earlier FROM ready
)
UPDATE embeddb.job j
   SET lease_until = clock_timestamp() + %(lease)s, worker = %(worker)s, attempts = j.attempts + 1
 WHERE j.ctid = ANY (ARRAY(SELECT spot FROM counted WHERE earlier < %(rows)s))
RETURNING j.id, ARRAY(SELECT k::text FROM jsonb_array_elements(j.keys) AS k) AS keys, j.attempts, j.returned,
          j.priority, j.enqueued_at;

-- name: is_large
-- Is so much stored outside of the rows of an embedding's table, its partitions with it, that sources may be large?
-- Of a table that others inherit from, nobody knows.
SELECT coalesce(sum(pg_relation_size(c.reltoastrelid)), 0) > %(small)s OR bool_or(c.relkind = 'r' AND c.relhassubclass)
  FROM embeddb.embedding e
 CROSS JOIN LATERAL (SELECT e.relation AS id UNION SELECT relid FROM pg_partition_tree(e.relation)) AS p
  JOIN pg_catalog.pg_class c ON c.oid = p.id
 WHERE e.id = %(embedding)s;

-- name: measure
-- How many bytes the sources of the rows of these keys take. Neither function fetches a value that is stored apart.
SELECT k.place::integer, {size} AS size
  FROM (SELECT key::jsonb, place FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS u (key, place)) AS k
  JOIN {table} AS t ON {match};

-- name: read
-- The present rows of the claimed keys: the key's place, the hash of the sources, the sources in order. Keys that
-- return no row are gone from the table.
SELECT k.place::integer, {hash} AS hash, {sources}
  FROM (SELECT key::jsonb, place FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS u (key, place)) AS k
  JOIN {table} AS t ON {match};

-- name: write
-- Vectors into their rows, as one set; returns the places that were written. Only rows whose sources still hash to
-- what was encoded, and that no one else has locked: the others are left as they are, and their keys stay queued.
-- The hashes are not compared by "=", which could be joined by: then every row of the table is hashed.
WITH incoming AS (
    SELECT key::jsonb, hash, vector, place
      FROM unnest(%(keys)s::text[], %(hashes)s::bigint[], %(vectors)s) WITH ORDINALITY AS u (key, hash, vector, place)
), held AS MATERIALIZED (
    SELECT k.place, k.vector, t.tableoid AS part, t.ctid AS spot
      FROM incoming AS k JOIN {table} AS t ON {match}
     WHERE {hash} IS NOT DISTINCT FROM k.hash
       FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE {table} AS t SET {column} = held.vector FROM held
 WHERE t.ctid = held.spot AND t.tableoid = held.part
RETURNING held.place::integer;

-- name: absent
-- Which of these keys have no row any more: deleted, or their key was changed (which queued the row anew).
SELECT k.place::integer
  FROM (SELECT key::jsonb, place FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS u (key, place)) AS k
 WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {match});

-- name: fail
-- Records failures, once each row is held, so that a row that is being deleted leaves none behind; returns the
-- places recorded. A row whose sources have changed since they were read has not failed yet: it stays queued.
WITH incoming AS (
    SELECT key::jsonb, hash, step, error, attempts, place
      FROM unnest(%(keys)s::text[], %(hashes)s::bigint[], %(steps)s::text[], %(errors)s::text[],
                  %(attempts)s::integer[])
           WITH ORDINALITY AS u (key, hash, step, error, attempts, place)
), held AS MATERIALIZED (
    SELECT k.* FROM incoming AS k JOIN {table} AS t ON {match}
     WHERE k.hash IS NULL OR {hash} IS NOT DISTINCT FROM k.hash
       FOR NO KEY UPDATE OF t SKIP LOCKED
), recorded AS (
    INSERT INTO embeddb.failure AS f (embedding, key, step, error, attempts)
    SELECT DISTINCT ON (key) %(embedding)s, key, step, error, attempts FROM held
    ON CONFLICT (embedding, key) DO UPDATE
       SET step = excluded.step, error = excluded.error, attempts = excluded.attempts, failed_at = now()
)
SELECT place::integer FROM held;

-- name: any_failures
-- Has an embedding any failures?
SELECT EXISTS (SELECT FROM embeddb.failure WHERE embedding = %(embedding)s);

-- name: recover
-- Failures of rows that are well now.
DELETE FROM embeddb.failure
 WHERE embedding = %(embedding)s AND key = ANY (%(keys)s::text[]::jsonb[]);

-- name: note_files
-- Which content of their files rows were embedded from.
INSERT INTO embeddb.digest AS d (embedding, key, file, digest, stamp)
SELECT %(embedding)s, key::jsonb, file, digest, stamp
  FROM unnest(%(keys)s::text[], %(files)s::text[], %(digests)s::text[], %(stamps)s::text[])
       AS u (key, file, digest, stamp)
 ORDER BY key
ON CONFLICT (embedding, key) DO UPDATE
   SET file = excluded.file, digest = excluded.digest, stamp = excluded.stamp, checked_at = now();

-- name: names
-- What an embedding's table and columns are called now.
SELECT n.nspname, r.relname, c.keys, c.sources, c.vector
  FROM embeddb.embedding e
  JOIN pg_catalog.pg_class r ON r.oid = e.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
 CROSS JOIN LATERAL embeddb.columns(e.id) AS c
 WHERE e.id = %(embedding)s;

-- name: finish
-- Jobs whose every key is settled. Only while this worker holds them: a lease that ran out may be someone else's now.
DELETE FROM embeddb.job
 WHERE id IN (SELECT id FROM embeddb.job WHERE id = ANY (%(jobs)s) AND worker = %(worker)s FOR UPDATE SKIP LOCKED);

-- name: release
-- Jobs given back, each with the keys that are still to do and the seconds to wait. `uncount` takes the attempt
-- back: stopping, waiting for a rate limit and finding a row locked are no attempts.
WITH held AS MATERIALIZED (
    SELECT id FROM embeddb.job WHERE id = ANY (%(jobs)s) AND worker = %(worker)s FOR UPDATE SKIP LOCKED
)
UPDATE embeddb.job j
   SET keys = r.keys::jsonb, lease_until = NULL, worker = NULL,
       attempts = j.attempts - CASE WHEN r.uncount THEN 1 ELSE 0 END,
       returned = j.returned + CASE WHEN r.uncount THEN 0 ELSE 1 END,
       not_before = CASE WHEN r.delay > 0 THEN clock_timestamp() + r.delay * interval '1 second' ELSE j.not_before END
  FROM unnest(%(jobs)s::bigint[], %(remaining)s::text[], %(delays)s::float8[], %(uncounts)s::boolean[])
       AS r (id, keys, delay, uncount)
  JOIN held USING (id)
 WHERE j.id = r.id;

-- name: split
-- Jobs of several keys become jobs of one key, so that a row that kills its worker comes to stand alone. They wait
-- for their place and keep their attempts, but for this claim's.
WITH whole AS (
    DELETE FROM embeddb.job
     WHERE id IN (SELECT id FROM embeddb.job WHERE id = ANY (%(jobs)s) AND worker = %(worker)s FOR UPDATE SKIP LOCKED)
    RETURNING embedding, priority, attempts - 1 AS attempts, returned, not_before, enqueued_at, keys
)
INSERT INTO embeddb.job (embedding, priority, attempts, returned, not_before, enqueued_at, keys)
SELECT w.embedding, w.priority, w.attempts, w.returned, w.not_before, w.enqueued_at, jsonb_build_array(k.key)
  FROM whole w, jsonb_array_elements(w.keys) AS k (key);

-- name: wait
-- A rate limit, for all workers: the encoder of this embedding is left alone for so many seconds.
UPDATE embeddb.encoder c
   SET wait_until = greatest(c.wait_until, clock_timestamp() + %(seconds)s * interval '1 second'),
       wait_reason = %(reason)s
  FROM embeddb.embedding e
 WHERE e.id = %(embedding)s AND c.id = e.encoder;

-- name: idle_until
-- When an embedding next has something to do: seconds from now (0: something is ready), or NULL for nothing queued.
SELECT extract(epoch FROM greatest(
           min(greatest(j.not_before, j.lease_until)), c.wait_until, statement_timestamp()) - statement_timestamp())::float8
  FROM embeddb.embedding e JOIN embeddb.encoder c ON c.id = e.encoder JOIN embeddb.job j ON j.embedding = e.id
 WHERE e.id = %(embedding)s AND e.state = 'active'
 GROUP BY c.wait_until;

-- name: fingerprint
-- Notes the fingerprint of an embedding's encoder where none is noted; returns the one that holds.
WITH noted AS (
    UPDATE embeddb.encoder c SET fingerprint = %(fingerprint)s
      FROM embeddb.embedding e
     WHERE e.id = %(embedding)s AND c.id = e.encoder AND c.fingerprint IS NULL
    RETURNING c.fingerprint
)
SELECT coalesce((SELECT fingerprint FROM noted), c.fingerprint)
  FROM embeddb.encoder c JOIN embeddb.embedding e ON e.encoder = c.id
 WHERE e.id = %(embedding)s;

-- name: note
-- Another fingerprint for an embedding's encoder; the vectors of queries by the old one go.
WITH noted AS (
    UPDATE embeddb.encoder c SET fingerprint = %(fingerprint)s
      FROM embeddb.embedding e
     WHERE e.id = %(embedding)s AND c.id = e.encoder AND c.fingerprint IS DISTINCT FROM %(fingerprint)s
    RETURNING c.id
)
DELETE FROM embeddb.query_cache WHERE encoder IN (SELECT id FROM noted);

-- name: requeue
-- Failed rows get another chance: each failure becomes a job. NULL for `keys` means all of the embedding.
WITH again AS (
    DELETE FROM embeddb.failure
     WHERE embedding = %(embedding)s AND (%(keys)s::text[] IS NULL OR key = ANY (%(keys)s::text[]::jsonb[]))
    RETURNING key
)
INSERT INTO embeddb.job (embedding, keys) SELECT %(embedding)s, jsonb_build_array(key) FROM again;

-- name: forget
-- Failures that no one will mend: the rows keep what vector they have. Afterwards verify reports them.
DELETE FROM embeddb.failure
 WHERE embedding = %(embedding)s AND (%(keys)s::text[] IS NULL OR key = ANY (%(keys)s::text[]::jsonb[]));

-- name: page
-- The next keys of a table in the order of its primary key, after the key `after` (NULL: from the start).
SELECT {key}::text FROM {table} AS t
 WHERE %(after)s::text IS NULL OR ({keys}) > (SELECT {after} FROM (SELECT %(after)s::jsonb AS key) AS k)
 ORDER BY {keys}
 LIMIT %(limit)s;

-- name: sample
-- So many keys at random.
SELECT {key}::text FROM {table} AS t ORDER BY random() LIMIT %(limit)s;

-- name: inspect
-- Rows as they stand, each with whether something is pending for it, in one statement and so in one snapshot: a vector
-- that is stale here with nothing pending here breaks the promise, whatever happens meanwhile.
WITH pending AS MATERIALIZED (
    SELECT f.key FROM embeddb.failure f WHERE f.embedding = %(embedding)s
    UNION SELECT jsonb_array_elements(j.keys) FROM embeddb.job j WHERE j.embedding = %(embedding)s
)
SELECT k.key::text, {send} AS vector, EXISTS (SELECT FROM pending p WHERE p.key = k.key) AS pending, {sources}
  FROM (SELECT u::jsonb AS key FROM unnest(%(keys)s::text[]) AS u) AS k
  JOIN {table} AS t ON {match};

-- name: files
-- Rows as a rescan needs them: what is recorded of their files, and whether something is pending.
WITH queued AS MATERIALIZED (
    SELECT jsonb_array_elements(j.keys) AS key FROM embeddb.job j WHERE j.embedding = %(embedding)s
)
SELECT k.key::text, d.file, d.digest, d.stamp, EXISTS (SELECT FROM queued q WHERE q.key = k.key) AS queued,
       f.key IS NOT NULL AS failed, {sources}
  FROM (SELECT u::jsonb AS key FROM unnest(%(keys)s::text[]) AS u) AS k
  JOIN {table} AS t ON {match}
  LEFT JOIN embeddb.digest d ON d.embedding = %(embedding)s AND d.key = k.key
  LEFT JOIN embeddb.failure f ON f.embedding = %(embedding)s AND f.key = k.key;

-- name: queue
-- Rows to be embedded anew, behind fresh ones: one job. Their failures, if any, get another chance.
WITH again AS (
    DELETE FROM embeddb.failure WHERE embedding = %(embedding)s AND key = ANY (%(keys)s::text[]::jsonb[])
)
INSERT INTO embeddb.job (embedding, priority, keys)
SELECT %(embedding)s, 10, jsonb_agg(key) FROM unnest(%(keys)s::text[]::jsonb[]) AS u (key);

-- name: checked
-- Files that were looked at and are the same: their stamps as they are now.
UPDATE embeddb.digest d SET stamp = u.stamp, checked_at = now()
  FROM unnest(%(keys)s::text[], %(stamps)s::text[]) AS u (key, stamp)
 WHERE d.ctid = ANY (ARRAY(SELECT x.ctid FROM embeddb.digest x
                            WHERE x.embedding = %(embedding)s AND x.key = ANY (%(keys)s::text[]::jsonb[])
                              FOR UPDATE SKIP LOCKED))
   AND d.key = u.key::jsonb;

-- name: forget_files
-- What is recorded of files whose rows are gone.
DELETE FROM embeddb.digest AS k
 WHERE k.embedding = %(embedding)s AND NOT EXISTS (SELECT FROM {table} AS t WHERE {match});

-- name: orphans
-- Failures whose row is gone. (A job without its row is no orphan: claiming it drops it.)
SELECT k.key::text FROM embeddb.failure AS k
 WHERE k.embedding = %(embedding)s AND NOT EXISTS (SELECT FROM {table} AS t WHERE {match});

-- name: problems
-- What stands between an embedding and its promise: triggers missing, disabled, or passed by.
SELECT embeddb.problems(%(embedding)s);
