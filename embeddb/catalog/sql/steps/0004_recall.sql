-- What recall was measured, and which settings reach it. Searches read the settings in the comment of the index, which
-- every role sees; here is what coverage shows and what tells when to measure anew.
CREATE TABLE embeddb.recall (
    embedding   integer PRIMARY KEY REFERENCES embeddb.embedding ON DELETE CASCADE,
    k           integer NOT NULL CHECK (k > 0),
    target      float8 NOT NULL CHECK (target > 0 AND target < 1),
    setting     text NOT NULL CHECK (setting IN ('ef_search', 'probes', 'candidates')),
    effort      integer NOT NULL,
    recall      float8 NOT NULL,
    queries     integer NOT NULL,
    rows        bigint NOT NULL,
    comment     text NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE embeddb.recall IS 'Measured recall of each embedding''s index, by embeddb recall.';
COMMENT ON COLUMN embeddb.recall.effort IS 'The value of setting at which recall@k was measured, and that searches use by default.';
COMMENT ON COLUMN embeddb.recall.rows IS 'Rows with a vector when it was measured; with twice as many it is stale.';
