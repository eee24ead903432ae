-- Transformers that run in the database: their settings, weights, tokens and characters.

CREATE TABLE embeddb.transformer (
    encoder         integer PRIMARY KEY REFERENCES embeddb.encoder ON DELETE CASCADE,
    name            text NOT NULL UNIQUE,
    fingerprint     text NOT NULL,
    layers          smallint NOT NULL,
    heads           smallint NOT NULL,
    width           smallint NOT NULL,
    slices          smallint NOT NULL,
    slice_width     smallint NOT NULL,
    activation      text NOT NULL CHECK (activation IN ('gelu', 'gelu_tanh', 'relu')),
    epsilon         float8 NOT NULL,
    pooling         text NOT NULL CHECK (pooling IN ('mean', 'cls', 'max')),
    normalized      boolean NOT NULL,
    truncate_to     integer,
    scaled          boolean NOT NULL,
    max_tokens      integer NOT NULL,
    query_prompt    text NOT NULL,
    document_prompt text NOT NULL,
    tokenizer       text NOT NULL CHECK (tokenizer IN ('wordpiece', 'bytes')),
    ascii_from      text NOT NULL,
    ascii_to        text NOT NULL,
    refused         text,
    special         text,
    prefix          text NOT NULL,
    longest         smallint NOT NULL,
    unknown         integer,
    before_text     integer[] NOT NULL,
    after_text      integer[] NOT NULL,
    installed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE embeddb.transformer IS 'Transformers whose weights are in this database, for embeddb.embed.';
COMMENT ON COLUMN embeddb.transformer.fingerprint IS 'Of the encoder whose weights these are: for another one they are not used.';
COMMENT ON COLUMN embeddb.transformer.width IS 'Dimensions between the layers.';
COMMENT ON COLUMN embeddb.transformer.slices IS 'Parts that the rows of the widest matrix are cut into, so that each fits on a page.';
COMMENT ON COLUMN embeddb.transformer.scaled IS 'Whether a truncated vector is scaled to length 1 again.';
COMMENT ON COLUMN embeddb.transformer.ascii_from IS 'What becomes of ASCII, as translate() takes it: from ascii_from to ascii_to.';
COMMENT ON COLUMN embeddb.transformer.refused IS 'A pattern of what this tokeniser cannot treat as the original does, in a cleaned text.';
COMMENT ON COLUMN embeddb.transformer.special IS 'A pattern of the tokens that are recognised as they stand, such as [SEP].';

-- One row holds as many neurons as fit on a page: a scan of few large rows costs less than one of many small ones, and
-- an array that is stored plain is read where it lies. A neuron is its weights and its bias, negated, because pgvector's
-- operator for the inner product is the negative one.
CREATE TABLE embeddb.transformer_weight (
    encoder integer NOT NULL REFERENCES embeddb.transformer ON DELETE CASCADE,
    layer   smallint NOT NULL,
    part    text COLLATE "C" NOT NULL,
    slice   smallint NOT NULL,
    place   integer NOT NULL,
    neurons @extschema:vector@.vector[],
    halves  @extschema:vector@.halfvec[],
    PRIMARY KEY (encoder, layer, part, slice, place),
    CHECK (num_nonnulls(neurons, halves) = 1)
);
ALTER TABLE embeddb.transformer_weight ALTER COLUMN neurons SET STORAGE PLAIN;
ALTER TABLE embeddb.transformer_weight ALTER COLUMN halves SET STORAGE PLAIN;
COMMENT ON TABLE embeddb.transformer_weight IS 'Weights of transformers, in single or half precision.';

CREATE TABLE embeddb.transformer_token (
    encoder integer NOT NULL REFERENCES embeddb.transformer ON DELETE CASCADE,
    id      integer NOT NULL,
    token   text COLLATE "C" NOT NULL,
    whole   boolean NOT NULL,
    vector  @extschema:vector@.vector,
    half    @extschema:vector@.halfvec,
    PRIMARY KEY (encoder, id),
    CHECK (num_nonnulls(vector, half) = 1)
);
ALTER TABLE embeddb.transformer_token ALTER COLUMN vector SET STORAGE PLAIN;
ALTER TABLE embeddb.transformer_token ALTER COLUMN half SET STORAGE PLAIN;
CREATE UNIQUE INDEX transformer_token_text ON embeddb.transformer_token (encoder, token) INCLUDE (id, whole);
COMMENT ON TABLE embeddb.transformer_token IS 'Vocabularies of transformers, with the vector of each token.';
COMMENT ON COLUMN embeddb.transformer_token.whole IS 'Whether the tokeniser makes this one token of this very text.';

CREATE TABLE embeddb.transformer_merge (
    encoder integer NOT NULL REFERENCES embeddb.transformer ON DELETE CASCADE,
    first   text COLLATE "C" NOT NULL,
    second  text COLLATE "C" NOT NULL,
    rank    integer NOT NULL,
    PRIMARY KEY (encoder, first, second)
);
COMMENT ON TABLE embeddb.transformer_merge IS 'Byte pair encoding: which neighbours become one, the lowest rank first.';

-- Only characters that do not stay as they are, and only beyond ASCII.
CREATE TABLE embeddb.transformer_character (
    encoder integer NOT NULL REFERENCES embeddb.transformer ON DELETE CASCADE,
    first   integer NOT NULL,
    last    integer NOT NULL,
    becomes text,
    PRIMARY KEY (encoder, first)
);
COMMENT ON TABLE embeddb.transformer_character IS 'What tokenisers make of the characters from first to last; NULL: a word of its own.';
