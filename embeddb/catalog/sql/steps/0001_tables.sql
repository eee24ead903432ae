-- The tables of the catalog. A step is frozen once it is published: a later change is a new step.
--
-- Writers only ever INSERT into embeddb.job; they never touch a row that a worker may hold. So a writer cannot
-- wait for a worker, deadlock with one, or fail to serialise against one, at any isolation level.

CREATE SCHEMA IF NOT EXISTS embeddb;
COMMENT ON SCHEMA embeddb IS 'Embeddings of this database: what is declared, what waits, what failed.';

CREATE TABLE embeddb.step (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    hash       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE embeddb.step IS 'Version steps applied to this catalog, with the SHA-256 of each.';

CREATE TABLE embeddb.encoder (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config      jsonb NOT NULL,
    dim         integer NOT NULL CHECK (dim BETWEEN 1 AND 16000),
    fingerprint text,
    wait_until  timestamptz,
    wait_reason text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX encoder_config ON embeddb.encoder (md5(config::text), dim);
COMMENT ON TABLE embeddb.encoder IS 'Encoders in use: configuration (never a secret), dimensions, fingerprint.';
COMMENT ON COLUMN embeddb.encoder.wait_until IS 'Every worker leaves this encoder alone until then: a rate limit is shared.';

-- Which columns an embedding has is read from its "key" trigger: the column list in pg_trigger follows renames and
-- comes back from a dump with the right numbers, which a number or a name stored here would not. key_at, source_at
-- and vector_at are positions (from 1) in that list; columns are the names as last seen, for when the trigger is gone.
-- The id is a hash of the name, so that the same declaration makes the same objects in every database.
CREATE TABLE embeddb.embedding (
    id            integer PRIMARY KEY,
    relation      regclass NOT NULL,
    encoder       integer NOT NULL REFERENCES embeddb.encoder,
    spec          jsonb NOT NULL,
    key_at        smallint[] NOT NULL,
    source_at     smallint[] NOT NULL,
    vector_at     smallint NOT NULL,
    columns       name[] NOT NULL,
    built         text,
    state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused')),
    registered_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX embedding_relation ON embeddb.embedding (relation);
COMMENT ON TABLE embeddb.embedding IS 'Declared embeddings. Read the view embeddb.embeddings for names and columns as they are now.';
COMMENT ON COLUMN embeddb.embedding.spec IS 'The declaration, with the names it was registered under.';
COMMENT ON COLUMN embeddb.embedding.built IS 'Hash of the triggers and functions that were made for it.';
COMMENT ON COLUMN embeddb.embedding.state IS 'paused: rows are queued, workers do not take them.';

-- A job is one change by one statement: the keys of rows whose vector is missing or stale. A statement of fewer
-- than 64 rows makes a job a row, a larger one a job for every 256 rows. A newer change of a row is another job; jobs are
-- never merged. A key is the primary key's value as JSON (17, "uuid…"), or for composite keys
-- an array of values.
--
-- States, by columns: ready (lease_until is null or past, not_before past), waiting (not_before ahead: a retry),
-- leased (lease_until ahead). A job's end is its deletion.
--
-- lease_until, worker and attempts are not indexed, so a claim is a HOT update: hence the fillfactor.
CREATE TABLE embeddb.job (
    id          bigint GENERATED ALWAYS AS IDENTITY (CACHE 32) PRIMARY KEY,
    embedding   integer NOT NULL,
    priority    smallint NOT NULL DEFAULT 0,
    attempts    smallint NOT NULL DEFAULT 0,
    worker      integer,
    not_before  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    keys        jsonb NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
ALTER TABLE embeddb.job ALTER COLUMN keys SET STORAGE EXTERNAL;
CREATE INDEX job_claim ON embeddb.job (embedding, priority, not_before);
COMMENT ON TABLE embeddb.job IS 'Rows that wait to be embedded.';
COMMENT ON COLUMN embeddb.job.priority IS 'Lower goes first: 0 for fresh rows, 10 for a backfill.';
COMMENT ON COLUMN embeddb.job.attempts IS 'Claims so far; counted when claimed, so that a row that kills workers is seen.';

CREATE TABLE embeddb.failure (
    embedding   integer NOT NULL,
    key         jsonb NOT NULL,
    step        text NOT NULL CHECK (step IN ('read', 'encode', 'write')),
    error       text NOT NULL,
    attempts    integer NOT NULL,
    failed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (embedding, key)
);
COMMENT ON TABLE embeddb.failure IS 'Rows that could not be embedded, and why. Retry or forget them with embeddb failures.';

CREATE TABLE embeddb.worker (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopping     boolean NOT NULL DEFAULT false,
    embedded     bigint NOT NULL DEFAULT 0,
    failed       bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE embeddb.worker IS 'Running workers and their last sign of life.';

CREATE TABLE embeddb.query_cache (
    encoder integer NOT NULL REFERENCES embeddb.encoder ON DELETE CASCADE,
    query   text NOT NULL,
    vector  @extschema:vector@.vector NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX query_cache_key ON embeddb.query_cache (encoder, md5(query));
COMMENT ON TABLE embeddb.query_cache IS 'Vectors of texts that were searched for, so that SQL alone can search for them again.';
