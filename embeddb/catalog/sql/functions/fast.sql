-- Texts to vectors by adding up the vectors of their tokens, about as fast as an index is searched.

-- The mean of the vectors of a text's tokens, as embeddb.fast_encoder says. NULL for a text without a known token. To
-- what was distilled, a token that occurs n times counts as the root of n.
CREATE OR REPLACE FUNCTION embeddb.fast_embed(model embeddb.fast_encoder, query text) RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- What is left without the common component is rounding, below this share of the whole.
    nothing CONSTANT float8 := 1e-5;
    tokens CONSTANT text[] := embeddb.fast_tokens(model, query);
    whole float8;
    result @extschema:vector@.vector;
BEGIN
    SELECT @extschema:vector@.avg(
               CASE WHEN v.share = 1 OR v.v IS NULL THEN v.v
                    ELSE v.v OPERATOR(@extschema:vector@.*)
                         array_fill(v.share, ARRAY[@extschema:vector@.vector_dims(v.v)])::@extschema:vector@.vector END)
      INTO result
      FROM (SELECT u.share, coalesce(t.vector, t.half::@extschema:vector@.vector,
                                     CASE WHEN t.token IS NULL AND model.unknown <> 'skip'
                                          THEN embeddb.fast_unknown(model, u.token) END) AS v
              FROM (SELECT n.token, CASE WHEN model.tokenizer = 'words' THEN 1
                                         ELSE 1 / sqrt(count(*) OVER (PARTITION BY n.token)) END::real AS share
                      FROM unnest(tokens) AS n (token)) u
              LEFT JOIN embeddb.fast_token t ON t.fast = model.id AND t.token = u.token OFFSET 0) v;
    IF result IS NULL THEN
        RETURN NULL;
    END IF;
    IF model.component THEN
        whole := @extschema:vector@.vector_norm(result);
        result := @extschema:vector@.subvector(result, 1, @extschema:vector@.vector_dims(result) - 1);
        IF @extschema:vector@.vector_norm(result) < nothing * whole THEN
            RETURN NULL;
        END IF;
    END IF;
    IF @extschema:vector@.vector_norm(result) = 0 THEN
        RETURN NULL;
    END IF;
    IF model.length IS NOT NULL THEN
        result := @extschema:vector@.l2_normalize(result);
        IF model.length <> 1 THEN
            result := result OPERATOR(@extschema:vector@.*)
                      array_fill(model.length, ARRAY[@extschema:vector@.vector_dims(result)])::@extschema:vector@.vector;
        END IF;
    END IF;
    RETURN result;
END $$;

-- The vector of a token that is not known: the mean of those of its parts that are, or an error.
CREATE OR REPLACE FUNCTION embeddb.fast_unknown(model embeddb.fast_encoder, token text)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF model.unknown = 'error' THEN
        RAISE EXCEPTION '% does not know the word %', model.name, quote_literal(token) USING ERRCODE = 'EB004';
    END IF;
    RETURN (SELECT @extschema:vector@.avg(coalesce(t.vector, t.half::@extschema:vector@.vector))
              FROM unnest(embeddb.fast_parts(model, token)) AS p (part)
              JOIN embeddb.fast_token t ON t.fast = model.id AND t.token = p.part);
END $$;

-- The tokens of a text, in order, as often as they occur.
CREATE OR REPLACE FUNCTION embeddb.fast_tokens(model embeddb.fast_encoder, query text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lexemes text[];
BEGIN
    CASE model.tokenizer
    WHEN 'words' THEN
        RETURN embeddb.fast_words(model, query);
    WHEN 'lexemes' THEN
        SELECT array_agg(x.lexeme ORDER BY p.place) INTO lexemes
          FROM unnest(to_tsvector(model.config::regconfig, query)) AS x CROSS JOIN LATERAL unnest(x.positions) AS p (place);
        RETURN coalesce(lexemes, '{}');
    WHEN 'ngrams' THEN
        RETURN ARRAY(
            SELECT g.gram
              FROM regexp_split_to_table(lower(normalize(query, NFKC)), '[[:space:][:punct:]]+')
                   WITH ORDINALITY AS w (word, place)
             CROSS JOIN LATERAL embeddb.ngrams(w.word, model.shortest, model.longest) WITH ORDINALITY AS g (gram, place)
             ORDER BY w.place, g.place);
    END CASE;
END $$;

-- All pieces of a text of `shortest` to `longest` characters. A long one by 500 places at a time, for substr() counts
-- from the beginning.
CREATE OR REPLACE FUNCTION embeddb.ngrams(word text, shortest integer, longest integer) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part text := word;
BEGIN
    FOR block IN 0 .. (length(word) - 1) / 500 LOOP
        IF length(word) > 500 THEN
            part := substr(word, 500 * block + 1, 500 + longest - 1);
        END IF;
        RETURN QUERY
        SELECT substr(part, s.start, n.size)
          FROM generate_series(1, least(500, length(part))) AS s (start)
         CROSS JOIN LATERAL generate_series(shortest, least(longest, length(part) - s.start + 1)) AS n (size);
    END LOOP;
END $$;

-- The parts of a token: n-grams of it between < and >, but not those marks alone (Bojanowski et al. 2017, "Enriching Word
-- Vectors with Subword Information"). FastText knows them by the number of a bucket.
CREATE OR REPLACE FUNCTION embeddb.fast_parts(model embeddb.fast_encoder, token text) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT chr(1) || CASE WHEN model.buckets IS NULL THEN g.gram
                              ELSE (embeddb.fasttext_hash(g.gram) % model.buckets)::text END
          FROM embeddb.ngrams('<' || token || '>', model.shortest, model.longest) AS g (gram)
         WHERE g.gram NOT IN ('<', '>'))
$$;

-- FNV-1a of 32 bits, over signed bytes as FastText's dictionary.cc has it.
CREATE OR REPLACE FUNCTION embeddb.fasttext_hash(gram text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes CONSTANT bytea := convert_to(gram, 'UTF8');
    byte bigint;
    hash bigint := 2166136261;
BEGIN
    FOR i IN 0 .. length(bytes) - 1 LOOP
        byte := get_byte(bytes, i);
        hash := ((hash # CASE WHEN byte < 128 THEN byte ELSE byte | 4294967040 END) * 16777619) & 4294967295;
    END LOOP;
    RETURN hash;
END $$;

-- The words of a text as embeddb.encoders.word_tokens has them: runs of letters, marks and numbers, in NFKC and case
-- folded. What Postgres normalises as another version of Unicode than Python's is refused.
CREATE OR REPLACE FUNCTION embeddb.fast_words(model embeddb.fast_encoder, query text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    folded text := query;
BEGIN
    IF octet_length(query) > length(query) THEN
        folded := normalize(embeddb.fast_characters(model, 1::smallint, query), NFKC);
        folded := embeddb.fast_characters(model, 2::smallint, folded);
    END IF;
    RETURN ARRAY(SELECT m.m[1] FROM regexp_matches(
        lower(folded COLLATE "C"), '[^\u0001-/:-`{-\u007f]+', 'g') WITH ORDINALITY AS m (m, place) ORDER BY m.place);
END $$;

-- The text with every character beyond ASCII as embeddb.fast_character has it.
CREATE OR REPLACE FUNCTION embeddb.fast_characters(model embeddb.fast_encoder, stage smallint, given text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    result text;
    odd text;
BEGIN
    SELECT string_agg(CASE WHEN d.first IS NULL THEN c.c ELSE d.becomes END, '' ORDER BY c.place),
           min(c.c) FILTER (WHERE d.first IS NOT NULL AND d.becomes IS NULL)
      INTO result, odd
      FROM unnest(string_to_array(given, NULL)) WITH ORDINALITY AS c (c, place)
      LEFT JOIN LATERAL (
            SELECT r.* FROM (SELECT x.first, x.last, x.becomes FROM embeddb.fast_character x
                              WHERE x.fast = model.id AND x.stage = fast_characters.stage AND x.first <= ascii(c.c)
                              ORDER BY x.first DESC LIMIT 1) r
             WHERE r.last >= ascii(c.c)) d ON ascii(c.c) > 127;
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION 'this text cannot be embedded in SQL by %: % (U+%) is newer than this server''s Unicode',
            model.name, quote_literal(odd), upper(to_hex(ascii(odd)))
            USING ERRCODE = 'EB004', HINT = 'Embed it in Python, and have it remembered with embeddb.remember.';
    END IF;
    RETURN result;
END $$;
