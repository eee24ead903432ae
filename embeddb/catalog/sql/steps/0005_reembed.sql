-- An encoder's change: a second column is filled beside the one that serves, and takes its place.

-- `serving` is the embedding that searches use, `shadow` the other: while "filling" the new one, once "swapped" the old
-- one, which is kept up to date until it is contracted, so that one can go back.
CREATE TABLE embeddb.reembedding (
    serving    integer PRIMARY KEY,
    shadow     integer NOT NULL UNIQUE,
    state      text NOT NULL DEFAULT 'filling' CHECK (state IN ('filling', 'swapped')),
    spec       jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    swapped_at timestamptz
);
COMMENT ON TABLE embeddb.reembedding IS 'Embeddings whose encoder is being changed.';
COMMENT ON COLUMN embeddb.reembedding.spec IS 'The declaration of the shadow for when it serves: its own mode, and the name of the column.';

-- Which encoders serve, and what is being changed, may differ from what a process read at an earlier generation.
CREATE TABLE embeddb.generation (value bigint NOT NULL);
INSERT INTO embeddb.generation VALUES (0);
COMMENT ON TABLE embeddb.generation IS 'One row: a number that grows with every step of an encoder''s change.';

-- Searches that must not see an encoder change in their midst hold this table; a swap waits for them.
CREATE TABLE embeddb.gate ();
COMMENT ON TABLE embeddb.gate IS 'Empty: a lock. Held by searches while an encoder is being changed, and by the change.';
