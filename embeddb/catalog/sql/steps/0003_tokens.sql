-- Token vectors of static and distilled encoders: a text is the mean of its tokens' vectors.

CREATE TABLE embeddb.fast_encoder (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder      integer NOT NULL REFERENCES embeddb.encoder ON DELETE CASCADE,
    embedding    integer REFERENCES embeddb.embedding ON DELETE CASCADE,
    fingerprint  text NOT NULL,
    name         text NOT NULL UNIQUE,
    tokenizer    text NOT NULL CHECK (tokenizer IN ('words', 'lexemes', 'ngrams')),
    config       text,
    shortest     smallint,
    longest      smallint,
    buckets      integer,
    unknown      text NOT NULL CHECK (unknown IN ('skip', 'parts', 'error')),
    component    boolean NOT NULL,
    length       real,
    tokens       integer NOT NULL,
    recipe       jsonb,
    agreement    jsonb,
    installed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (encoder, embedding),
    CHECK ((tokenizer = 'lexemes') = (config IS NOT NULL))
);
COMMENT ON TABLE embeddb.fast_encoder IS 'Encoders that embeddb.embed computes by adding token vectors: word vectors, and what was distilled.';
COMMENT ON COLUMN embeddb.fast_encoder.embedding IS 'Whose rows it was distilled from, and the only one it serves; NULL: it is the encoder itself, for all.';
COMMENT ON COLUMN embeddb.fast_encoder.fingerprint IS 'Of the encoder that it stands for: for another one it is not used.';
COMMENT ON COLUMN embeddb.fast_encoder.config IS 'The text search configuration that makes the lexemes.';
COMMENT ON COLUMN embeddb.fast_encoder.shortest IS 'Characters of the n-grams that tokens, or the parts of unknown ones, are: from shortest to longest.';
COMMENT ON COLUMN embeddb.fast_encoder.buckets IS 'Parts are known by their hash modulo this, as FastText has it.';
COMMENT ON COLUMN embeddb.fast_encoder.component IS 'Whether a last dimension holds the part of the vector along what all texts have in common, already taken away.';
COMMENT ON COLUMN embeddb.fast_encoder.length IS 'The length that vectors are scaled to; NULL: as they come.';
COMMENT ON COLUMN embeddb.fast_encoder.agreement IS 'With the true encoder on held-out texts: mean cosine, share of the ten nearest rows, how many texts.';

CREATE TABLE embeddb.fast_token (
    fast   integer NOT NULL REFERENCES embeddb.fast_encoder ON DELETE CASCADE,
    token  text COLLATE "C" NOT NULL,
    vector @extschema:vector@.vector,
    half   @extschema:vector@.halfvec,
    PRIMARY KEY (fast, token),
    CHECK (num_nonnulls(vector, half) = 1)
);
ALTER TABLE embeddb.fast_token ALTER COLUMN vector SET STORAGE PLAIN;
ALTER TABLE embeddb.fast_token ALTER COLUMN half SET STORAGE PLAIN;
COMMENT ON TABLE embeddb.fast_token IS 'The vector of every token, weighted. A part of a token begins with chr(1).';

-- First what characters become before Postgres normalises the text, then after it.
CREATE TABLE embeddb.fast_character (
    fast    integer NOT NULL REFERENCES embeddb.fast_encoder ON DELETE CASCADE,
    stage   smallint NOT NULL CHECK (stage IN (1, 2)),
    first   integer NOT NULL,
    last    integer NOT NULL,
    becomes text,
    PRIMARY KEY (fast, stage, first)
);
COMMENT ON TABLE embeddb.fast_character IS 'What word vectors make of the characters from first to last, beyond ASCII; NULL: refused.';
