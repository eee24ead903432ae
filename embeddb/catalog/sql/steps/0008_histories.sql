-- Histories: users' vectors that triggers keep up from their events.

CREATE TABLE embeddb.history (
    name          text NOT NULL,
    relation      regclass NOT NULL,
    events        regclass NOT NULL,
    spec          jsonb NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relation, name)
);
COMMENT ON TABLE embeddb.history IS 'Registered histories: the users'' and the events'' tables, and what was declared.';
