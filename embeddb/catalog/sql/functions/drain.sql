-- The queue worked off by the database itself, where it has the encoder: by the rules of embeddb/queue/queries.sql.

-- Embeds up to `n` queued rows of all embeddings whose encoder is in the database, or of one of them; what is refused is
-- recorded as a failure. Claiming, encoding and writing are three transactions, in batches of a few seconds, so no row and
-- no job is locked while the encoder runs. So it cannot be called within a transaction. Several may run at once, beside
-- workers too.
--
-- A procedure that commits may not pin its settings: each transaction here begins with them.
CREATE OR REPLACE PROCEDURE embeddb.drain(
    n integer DEFAULT 1000, embedding text DEFAULT NULL, INOUT written bigint DEFAULT 0, INOUT failed bigint DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    self integer;
    target integer;
    claimed record;
    encoded record;
    settled record;
BEGIN
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    target := embeddb.drain_target(embedding);
    written := 0;
    failed := 0;
    INSERT INTO embeddb.worker AS w (host, pid, version) VALUES ('embeddb.drain', pg_backend_pid(), 'SQL')
    RETURNING w.id INTO self;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL search_path = pg_catalog, pg_temp;
        UPDATE embeddb.worker w SET heartbeat_at = clock_timestamp(), embedded = drain.written, failed = drain.failed
         WHERE w.id = self;
        EXIT WHEN written + failed >= n;
        SELECT * INTO claimed FROM embeddb.drain_claim(self, target, least(64, n - written - failed)::integer);
        EXIT WHEN claimed.embedding IS NULL;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL search_path = pg_catalog, pg_temp;
        SELECT array_agg(e.key) AS keys, array_agg(e.hash) AS hashes, array_agg(e.vector) AS vectors,
               array_agg(e.step) AS steps, array_agg(e.error) AS errors
          INTO encoded FROM embeddb.drain_encode(claimed.embedding, claimed.keys) AS e;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL search_path = pg_catalog, pg_temp;
        SELECT * INTO settled FROM embeddb.drain_settle(
            self, claimed.embedding, claimed.jobs, encoded.keys, encoded.hashes, encoded.vectors, encoded.steps, encoded.errors);
        written := written + settled.written;
        failed := failed + settled.failed;
    END LOOP;
    DELETE FROM embeddb.worker w WHERE w.id = self;
END $$;

-- Whose rows can be embedded here: what the database has is the encoder itself, of the fingerprint that holds.
CREATE OR REPLACE FUNCTION embeddb.embeds_documents(encoder integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM embeddb.encoder x JOIN embeddb.transformer t ON t.encoder = x.id AND t.fingerprint = x.fingerprint
                    WHERE x.id = embeds_documents.encoder)
        OR EXISTS (SELECT FROM embeddb.encoder x JOIN embeddb.fast_encoder f ON f.encoder = x.id AND f.fingerprint = x.fingerprint
                    WHERE x.id = embeds_documents.encoder AND f.embedding IS NULL)
$$;

-- The vector of a document's text by an encoder, with the prompt that documents have. NULL where it knows nothing of it.
CREATE OR REPLACE FUNCTION embeddb.embed_document(encoder integer, document text) RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    noted text := (SELECT x.fingerprint FROM embeddb.encoder x WHERE x.id = embed_document.encoder);
    model embeddb.transformer;
    fast embeddb.fast_encoder;
BEGIN
    SELECT * INTO model FROM embeddb.transformer t WHERE t.encoder = embed_document.encoder AND t.fingerprint = noted;
    IF FOUND THEN
        RETURN embeddb.transformer_embed(model, document, model.document_prompt);
    END IF;
    SELECT * INTO STRICT fast FROM embeddb.fast_encoder f
     WHERE f.encoder = embed_document.encoder AND f.fingerprint = noted AND f.embedding IS NULL;
    RETURN embeddb.fast_embed(fast, document);
END $$;

-- The embedding to drain, NULL for all that can be; an error where there is none.
CREATE OR REPLACE FUNCTION embeddb.drain_target(embedding text) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target integer := CASE WHEN embedding IS NOT NULL THEN embeddb.find(embedding) END;
BEGIN
    IF NOT EXISTS (SELECT FROM embeddb.embedding e
                    WHERE e.id = coalesce(target, e.id) AND embeddb.embeds_documents(e.encoder)) THEN
        RAISE EXCEPTION 'this database cannot embed the rows of %', coalesce(embedding, 'any embedding')
            USING ERRCODE = 'EB004', DETAIL = 'No encoder of its own is installed here, or one of an older version.',
                  HINT = CASE WHEN EXISTS (SELECT FROM embeddb.embedding e
                                            WHERE e.id = coalesce(target, e.id) AND embeddb.has_sql(e.encoder))
                              THEN format('Run embeddb sql install %s, or a worker.', coalesce(embedding, 'table.column'))
                              ELSE 'Run a worker: embeddb worker.' END;
    END IF;
    RETURN target;
END $$;

-- Leases ready jobs of about `rows` keys, of the embedding whose turn it is: see the block `claim`. NULL for none.
CREATE OR REPLACE FUNCTION embeddb.drain_claim(
    worker integer, target integer, rows integer, OUT embedding integer, OUT jobs bigint[], OUT keys jsonb[]
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT e.id INTO embedding
      FROM embeddb.embedding e
      JOIN embeddb.encoder x ON x.id = e.encoder AND (x.wait_until IS NULL OR x.wait_until <= statement_timestamp())
     CROSS JOIN LATERAL (
            SELECT j.priority, j.not_before FROM embeddb.job j
             WHERE j.embedding = e.id AND j.not_before <= statement_timestamp()
               AND (j.lease_until IS NULL OR j.lease_until < statement_timestamp())
             ORDER BY j.priority, j.not_before LIMIT 1) AS first
     WHERE e.state = 'active' AND e.id = coalesce(target, e.id) AND embeddb.embeds_documents(e.encoder)
     ORDER BY first.priority, first.not_before LIMIT 1;
    WITH ready AS MATERIALIZED (
        SELECT j.id, j.priority, j.not_before, jsonb_array_length(j.keys) AS size
          FROM embeddb.job j
         WHERE j.embedding = drain_claim.embedding AND j.not_before <= statement_timestamp()
           AND (j.lease_until IS NULL OR j.lease_until < statement_timestamp())
         ORDER BY j.priority, j.not_before
         LIMIT drain_claim.rows
           FOR UPDATE OF j SKIP LOCKED
    ), counted AS (
        SELECT r.id, sum(r.size) OVER (ORDER BY r.priority, r.not_before, r.id) - r.size AS earlier FROM ready r
    ), leased AS (
        UPDATE embeddb.job j
           SET lease_until = clock_timestamp() + interval '2 minutes', worker = drain_claim.worker, attempts = j.attempts + 1
         WHERE j.id IN (SELECT c.id FROM counted c WHERE c.earlier < drain_claim.rows)
        RETURNING j.id, j.keys
    )
    SELECT array_agg(DISTINCT l.id), (array_agg(DISTINCT k.key))[:drain_claim.rows] INTO jobs, keys
      FROM leased l CROSS JOIN LATERAL jsonb_array_elements(l.keys) AS k (key);
    IF jobs IS NULL THEN
        embedding := NULL;
    END IF;
END $$;

-- A row's sources as texts, and their hash: of the row `alias`, as the block `read` has them. Sources that are not text are
-- read as NULL and named in `odd`. format() gives what a client would get; a cast would trim character(n).
CREATE OR REPLACE FUNCTION embeddb.sources_sql(
    relation regclass, sources name[], alias text, OUT hash text, OUT given text, OUT odd text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('hashtextextended(ROW(%s)::text, 0)', string_agg(format('%s.%I', alias, s.name), ', ' ORDER BY s.place)),
           format('ARRAY[%s]', string_agg(
               CASE WHEN y.typcategory IN ('S', 'E') THEN format('CASE WHEN %1$s.%2$I IS NOT NULL THEN format(''%%s'', %1$s.%2$I) END',
                                                          alias, s.name) ELSE 'NULL::text' END, ', ' ORDER BY s.place)),
           string_agg(format('source %I is %s, not text: embed a text column', s.name, format_type(a.atttypid, NULL)), '; '
                      ORDER BY s.place) FILTER (WHERE y.typcategory NOT IN ('S', 'E'))
      FROM unnest(sources) WITH ORDINALITY AS s (name, place)
      JOIN pg_attribute a ON a.attrelid = relation AND a.attname = s.name
      JOIN pg_type y ON y.oid = a.atttypid
$$;

-- The vectors of rows by their keys, for as many as a few seconds allow, with the hash of the sources that each is of;
-- `error` where there can be none. Rows that are gone do not come back: their hash is NULL.
CREATE OR REPLACE FUNCTION embeddb.drain_encode(embedding integer, keys jsonb[])
RETURNS TABLE (key jsonb, hash bigint, vector @extschema:vector@.vector, step text, error text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    deadline CONSTANT timestamptz := clock_timestamp() + interval '4 seconds';
    e record;
    c record := embeddb.columns(embedding);
    s record;
    given text[];
    document text;
BEGIN
    SELECT d.relation, d.encoder, d.spec INTO STRICT e FROM embeddb.embedding d WHERE d.id = drain_encode.embedding;
    s := embeddb.sources_sql(e.relation, c.sources, 't');
    FOREACH key IN ARRAY keys LOOP
        vector := NULL;
        step := NULL;
        error := NULL;
        EXECUTE format('SELECT %s, %s FROM %s AS t WHERE %s', s.hash, s.given, e.relation,
                       embeddb.match_sql(e.relation, c.keys, 't', '$1')) INTO hash, given USING key;
        IF hash IS NOT NULL AND s.odd IS NOT NULL THEN
            step := 'read';
            error := s.odd;
        ELSIF hash IS NOT NULL THEN
            document := embeddb.compose(given, ARRAY(SELECT jsonb_array_elements_text(e.spec -> 'sources')),
                                        e.spec ->> 'template');
            BEGIN
                IF document IS NOT NULL THEN
                    vector := embeddb.embed_document(e.encoder, document);
                    IF vector IS NULL THEN
                        step := 'encode';
                        error := 'the encoder has no embedding for it: it knows nothing in these sources';
                    ELSIF e.spec ->> 'metric' = 'cosine' AND @extschema:vector@.vector_norm(vector) = 0 THEN
                        step := 'encode';
                        error := 'the encoder made a zero vector, which has no direction';
                    END IF;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                -- What the server lacks just now, and what someone else did, is not the row's fault.
                IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
                    RAISE;
                END IF;
                step := 'encode';
                error := left(SQLERRM, 2000);
            END;
        END IF;
        RETURN NEXT;
        EXIT WHEN clock_timestamp() > deadline;
    END LOOP;
END $$;

-- Writes what was encoded and settles the jobs: see the blocks `write`, `fail`, `recover`, `finish` and `release`. Keys that
-- were tried and stay (their row is locked, or changed since) get a job of their own for later; the others stay as they are.
CREATE OR REPLACE FUNCTION embeddb.drain_settle(
    worker integer, embedding integer, jobs bigint[], keys jsonb[], hashes bigint[], vectors @extschema:vector@.vector[],
    steps text[], errors text[], OUT written bigint, OUT failed bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    done record := embeddb.drain_write(embedding, keys, hashes, vectors, steps);
    good jsonb[] := done.written;
    bad jsonb[];
    gone jsonb[];
BEGIN
    IF good IS NULL THEN
        -- The table refuses one of them, by a constraint or a trigger: then one at a time.
        good := '{}';
        FOR i IN 1 .. cardinality(keys) LOOP
            done := embeddb.drain_write(embedding, keys[i:i], hashes[i:i], vectors[i:i], steps[i:i]);
            good := good || done.written;
            IF done.written IS NULL THEN
                steps[i] := 'write';
                errors[i] := done.refused;
            END IF;
        END LOOP;
    END IF;
    bad := embeddb.drain_fail(embedding, jobs, keys, hashes, steps, errors);
    gone := embeddb.absent_keys(embedding, keys);
    DELETE FROM embeddb.failure f WHERE f.embedding = drain_settle.embedding AND f.key = ANY (good);
    written := cardinality(good);
    failed := cardinality(bad);

    WITH held AS MATERIALIZED (
        SELECT j.id FROM embeddb.job j WHERE j.id = ANY (jobs) AND j.worker = drain_settle.worker FOR UPDATE SKIP LOCKED
    ), parts AS MATERIALIZED (
        SELECT j.id, jsonb_agg(k.key) FILTER (WHERE k.key <> ALL (drain_settle.keys)) AS untried,
               jsonb_agg(k.key) FILTER (WHERE k.key = ANY (drain_settle.keys) AND k.key <> ALL (good || bad || gone)) AS kept
          FROM embeddb.job j JOIN held ON held.id = j.id CROSS JOIN LATERAL jsonb_array_elements(j.keys) AS k (key)
         GROUP BY j.id
    ), later AS (
        INSERT INTO embeddb.job (embedding, priority, attempts, not_before, enqueued_at, keys)
        SELECT j.embedding, j.priority, j.attempts - 1, clock_timestamp() + interval '1 second', j.enqueued_at, p.kept
          FROM parts p JOIN embeddb.job j ON j.id = p.id WHERE p.kept IS NOT NULL
    ), finished AS (
        DELETE FROM embeddb.job j USING parts p WHERE j.id = p.id AND p.untried IS NULL
    )
    UPDATE embeddb.job j
       SET keys = p.untried, lease_until = NULL, worker = NULL, attempts = j.attempts - 1
      FROM parts p WHERE j.id = p.id AND p.untried IS NOT NULL;
END $$;

-- Vectors into their rows, as one set: only where the sources still hash to what was encoded, and no one else has the row
-- locked. The keys that were written; NULL where the table refuses one of them: then nothing is. Hashes are not compared by
-- "=", which could be joined by: then every row of the table is hashed.
CREATE OR REPLACE FUNCTION embeddb.drain_write(
    embedding integer, keys jsonb[], hashes bigint[], vectors @extschema:vector@.vector[], steps text[], OUT written jsonb[],
    OUT refused text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    e record;
    c record := embeddb.columns(embedding);
    hash text;
BEGIN
    SELECT d.relation, format('@extschema:vector@.%I', d.spec ->> 'storage') AS type INTO STRICT e
      FROM embeddb.embedding d WHERE d.id = drain_write.embedding;
    hash := (embeddb.sources_sql(e.relation, c.sources, 't')).hash;
    EXECUTE format(
        'WITH k AS (SELECT * FROM unnest($1, $2, $3, $4) AS u (key, hash, vector, step) WHERE u.step IS NULL AND u.hash IS NOT NULL), '
        'held AS MATERIALIZED (SELECT k.key, k.vector, t.tableoid AS part, t.ctid AS spot FROM k JOIN %1$s AS t ON %2$s'
        ' WHERE %3$s IS NOT DISTINCT FROM k.hash FOR NO KEY UPDATE OF t SKIP LOCKED), '
        'done AS (UPDATE %1$s AS t SET %4$I = held.vector::%5$s FROM held WHERE t.ctid = held.spot AND t.tableoid = held.part'
        ' RETURNING held.key) SELECT array_agg(key) FROM done',
        e.relation, embeddb.match_sql(e.relation, c.keys, 't', 'k.key'), hash, c.vector, e.type)
        INTO written USING keys, hashes, vectors, steps;
    SET CONSTRAINTS ALL IMMEDIATE;
    written := coalesce(written, '{}');
EXCEPTION WHEN data_exception OR integrity_constraint_violation OR internal_error OR raise_exception THEN
    written := NULL;
    refused := SQLERRM;
END $$;

-- Records failures, once each row is held; the keys recorded. A row whose sources changed since has not failed yet.
CREATE OR REPLACE FUNCTION embeddb.drain_fail(
    embedding integer, jobs bigint[], keys jsonb[], hashes bigint[], steps text[], errors text[]
) RETURNS jsonb[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    relation regclass := (SELECT d.relation FROM embeddb.embedding d WHERE d.id = drain_fail.embedding);
    c record := embeddb.columns(embedding);
    recorded jsonb[];
BEGIN
    EXECUTE format(
        'WITH k AS (SELECT * FROM unnest($3, $4, $5, $6) AS u (key, hash, step, error) WHERE u.step IS NOT NULL), '
        'held AS MATERIALIZED (SELECT k.* FROM k JOIN %s AS t ON %s WHERE %s IS NOT DISTINCT FROM k.hash'
        '    FOR NO KEY UPDATE OF t SKIP LOCKED), '
        'failed AS (INSERT INTO embeddb.failure AS f (embedding, key, step, error, attempts)'
        ' SELECT $1, h.key, h.step, h.error, coalesce((SELECT max(j.attempts) FROM embeddb.job j WHERE j.id = ANY ($2)'
        ' AND j.keys @> jsonb_build_array(h.key)), 1) FROM held h ON CONFLICT (embedding, key) DO UPDATE'
        ' SET step = excluded.step, error = excluded.error, attempts = excluded.attempts, failed_at = now() RETURNING f.key)'
        ' SELECT array_agg(key) FROM failed',
        relation, embeddb.match_sql(relation, c.keys, 't', 'k.key'), (embeddb.sources_sql(relation, c.sources, 't')).hash)
        INTO recorded USING embedding, jobs, keys, hashes, steps, errors;
    RETURN coalesce(recorded, '{}');
END $$;

-- Which of these keys have no row any more.
CREATE OR REPLACE FUNCTION embeddb.absent_keys(embedding integer, keys jsonb[]) RETURNS jsonb[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET intervalstyle = 'postgres' AS $$
DECLARE
    relation regclass := (SELECT d.relation FROM embeddb.embedding d WHERE d.id = absent_keys.embedding);
    gone jsonb[];
BEGIN
    EXECUTE format('SELECT array_agg(k.key) FROM unnest($1) AS k (key) WHERE NOT EXISTS (SELECT FROM %s AS t WHERE %s)',
                   relation, embeddb.match_sql(relation, (embeddb.columns(embedding)).keys, 't', 'k.key'))
        INTO gone USING keys;
    RETURN coalesce(gone, '{}');
END $$;
