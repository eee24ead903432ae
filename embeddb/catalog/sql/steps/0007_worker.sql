-- What workers need to know: which jobs ended their workers, and which indexes are to be built again.

-- Attempts that came back with an answer. What is left of attempts ended with their worker.
ALTER TABLE embeddb.job ADD COLUMN returned smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN embeddb.job.returned IS 'Attempts that ended with an answer, if only "later". The others ended with their worker.';

-- Vector indexes that are away while most of a table is embedded.
CREATE TABLE embeddb.dropped_index (
    embedding  integer NOT NULL,
    name       text NOT NULL,
    definition text NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (embedding, name)
);
COMMENT ON TABLE embeddb.dropped_index IS 'Vector indexes dropped by a backfill that will build them again, as Postgres writes them.';
