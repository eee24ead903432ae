-- Digests of the files that rows were embedded from: nothing in the database changes with a file that is overwritten
-- under its name, so `embeddb rescan` compares. Files alone have rows here, and those as their workers read them.
CREATE TABLE embeddb.digest (
    embedding  integer NOT NULL REFERENCES embeddb.embedding ON DELETE CASCADE,
    key        jsonb NOT NULL,
    file       text NOT NULL,
    digest     text NOT NULL,
    stamp      text NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (embedding, key)
);
COMMENT ON TABLE embeddb.digest IS 'Which content of their files rows were embedded from.';
COMMENT ON COLUMN embeddb.digest.file IS 'SHA-256 of the file''s name, as the row has it: for another name this says nothing.';
COMMENT ON COLUMN embeddb.digest.digest IS 'SHA-256 of the file''s content.';
COMMENT ON COLUMN embeddb.digest.stamp IS 'Size, times, ETag: what tells a change without reading the file. Empty where unknown.';
