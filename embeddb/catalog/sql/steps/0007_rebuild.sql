-- Vector indexes that are away while most of a table is embedded, to be built again.

CREATE TABLE embeddb.dropped_index (
    embedding  integer NOT NULL,
    name       text NOT NULL,
    definition text NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (embedding, name)
);
COMMENT ON TABLE embeddb.dropped_index IS 'Vector indexes dropped by a backfill that will build them again, as Postgres writes them.';
