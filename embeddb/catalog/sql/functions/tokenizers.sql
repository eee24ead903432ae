-- From a text to the ids of a transformer's tokens: WordPiece (Devlin et al. 2019) and byte pair encoding over bytes
-- (Radford et al. 2019), equal to the library `tokenizers`. Patterns are matched in collation "C", where they mean the
-- same in every database; what is beyond ASCII is looked up in embeddb.transformer_character, which was made by
-- asking that library about every character.

-- The ids of a text's tokens, with those that go around every text, cut to what the model reads.
CREATE OR REPLACE FUNCTION embeddb.tokenize(model embeddb.transformer, query text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    room CONSTANT integer := model.max_tokens - cardinality(model.before_text) - cardinality(model.after_text);
    rest text := query;
    found text;
    start integer;
    ids integer[] := '{}';
BEGIN
    -- Special tokens count as such wherever they stand, in a user's text too.
    LOOP
        found := CASE WHEN model.special IS NOT NULL THEN substring(rest FROM model.special COLLATE "C") END;
        EXIT WHEN found IS NULL;
        start := strpos(rest, found);
        ids := ids || embeddb.token_ids(model, left(rest, start - 1)) || (
            SELECT t.id FROM embeddb.transformer_token t
             WHERE t.encoder = model.encoder AND t.token = btrim(found, E' \t\n\r'));
        rest := substr(rest, start + length(found));
    END LOOP;
    ids := ids || embeddb.token_ids(model, rest);
    RETURN model.before_text || ids[:room] || model.after_text;
END $$;

-- The same for text between special tokens.
CREATE OR REPLACE FUNCTION embeddb.token_ids(model embeddb.transformer, piece text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    words text[];
    ids integer[];
BEGIN
    IF piece = '' THEN
        RETURN '{}';
    END IF;
    words := CASE model.tokenizer WHEN 'wordpiece' THEN embeddb.wordpiece_words(model, piece)
                                  ELSE embeddb.byte_words(model, piece) END;
    SELECT array_agg(t.id ORDER BY w.place) INTO ids
      FROM unnest(words) WITH ORDINALITY AS w (word, place)
      JOIN embeddb.transformer_token t ON t.encoder = model.encoder AND t.token = w.word AND t.whole;
    IF cardinality(ids) = cardinality(words) THEN
        RETURN ids;
    END IF;
    ids := '{}';
    FOR at IN 1 .. cardinality(words) LOOP
        ids := ids || CASE model.tokenizer WHEN 'wordpiece' THEN embeddb.wordpiece_parts(model, words[at])
                                           ELSE embeddb.byte_parts(model, words[at]) END;
    END LOOP;
    RETURN ids;
END $$;

-- Words and punctuation marks, cleaned, lower-cased and without accents as the model wants them.
CREATE OR REPLACE FUNCTION embeddb.wordpiece_words(model embeddb.transformer, piece text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cleaned text := translate(piece, model.ascii_from, model.ascii_to);
BEGIN
    IF octet_length(cleaned) > length(cleaned) THEN
        SELECT string_agg(CASE WHEN d.first IS NULL THEN c.c ELSE coalesce(d.becomes, ' ' || c.c || ' ') END, ''
                          ORDER BY c.place)
          INTO cleaned
          FROM unnest(string_to_array(cleaned, NULL)) WITH ORDINALITY AS c (c, place)
          LEFT JOIN LATERAL (
                SELECT r.* FROM (SELECT x.first, x.last, x.becomes FROM embeddb.transformer_character x
                                  WHERE x.encoder = model.encoder AND x.first <= ascii(c.c)
                                  ORDER BY x.first DESC LIMIT 1) r
                 WHERE r.last >= ascii(c.c)) d ON ascii(c.c) > 127;
        IF cleaned ~ (model.refused COLLATE "C") THEN
            RAISE EXCEPTION 'this text cannot be embedded in SQL by %: % are two combining marks whose order may change',
                model.name, quote_literal(substring(cleaned FROM model.refused COLLATE "C"))
                USING ERRCODE = 'EB004', HINT = 'Embed it in Python, and have it remembered with embeddb.remember.';
        END IF;
    END IF;
    RETURN ARRAY(SELECT m.m[1] FROM regexp_matches(
        cleaned COLLATE "C", '[!-/:-@\[-`{-~]|[^ !-/:-@\[-`{-~]+', 'g') AS m (m));
END $$;

-- The longest known beginning of a word, then the longest known continuation, and so on; unknown as a whole if any
-- part is.
CREATE OR REPLACE FUNCTION embeddb.wordpiece_parts(model embeddb.transformer, word text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rest text := word;
    before text := '';
    part record;
    ids integer[] := '{}';
BEGIN
    -- The library's limit for BERT.
    IF length(word) > 100 THEN
        RETURN ARRAY[model.unknown];
    END IF;
    WHILE rest <> '' LOOP
        SELECT t.id, l.l INTO part
          FROM generate_series(least(length(rest), model.longest), 1, -1) AS l (l)
         CROSS JOIN LATERAL (
                SELECT x.id FROM embeddb.transformer_token x
                 WHERE x.encoder = model.encoder AND x.token = before || left(rest, l.l) OFFSET 0) t
         LIMIT 1;
        IF NOT FOUND THEN
            RETURN ARRAY[model.unknown];
        END IF;
        ids := ids || part.id;
        rest := substr(rest, part.l + 1);
        before := model.prefix;
    END LOOP;
    RETURN ids;
END $$;

-- Words with the blank before them, as characters that stand for bytes. The pattern is GPT-2's; as Postgres takes the
-- longest match and Perl the first, its last part is one blank here: the part before has what is more.
CREATE OR REPLACE FUNCTION embeddb.byte_words(model embeddb.transformer, piece text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pattern CONSTANT text := $re$'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^ \t-\rA-Za-z0-9]+|[ \t-\r]+(?![^ \t-\r])|[ \t-\r]$re$;
    whole text := model.prefix || piece;
    kinds text := whole;
    words text[] := '{}';
    start integer := 1;
    size integer;
BEGIN
    IF octet_length(whole) > length(whole) THEN
        -- In a copy every character gives way to an ASCII one of its kind.
        SELECT string_agg(CASE WHEN ascii(c.c) <= 127 THEN c.c ELSE coalesce(d.becomes, '!') END, '' ORDER BY c.place)
          INTO kinds
          FROM unnest(string_to_array(whole, NULL)) WITH ORDINALITY AS c (c, place)
          LEFT JOIN LATERAL (
                SELECT r.* FROM (SELECT x.first, x.last, x.becomes FROM embeddb.transformer_character x
                                  WHERE x.encoder = model.encoder AND x.first <= ascii(c.c)
                                  ORDER BY x.first DESC LIMIT 1) r
                 WHERE r.last >= ascii(c.c)) d ON ascii(c.c) > 127;
    END IF;
    FOR size IN SELECT length(m.m[1]) FROM regexp_matches(kinds COLLATE "C", '(' || pattern || ')', 'g') AS m (m) LOOP
        words := words || embeddb.byte_characters(substr(whole, start, size));
        start := start + size;
    END LOOP;
    RETURN words;
END $$;

-- GPT-2's way to write bytes as printable characters.
CREATE OR REPLACE FUNCTION embeddb.byte_characters(piece text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(chr(CASE WHEN b.b BETWEEN 33 AND 126 OR b.b BETWEEN 161 AND 172 OR b.b >= 174 THEN b.b
                               WHEN b.b <= 32 THEN 256 + b.b WHEN b.b <= 160 THEN 162 + b.b ELSE 323 END), ''
                      ORDER BY b.place)
      FROM (SELECT get_byte(convert_to(piece, 'UTF8'), i) AS b, i AS place
              FROM generate_series(0, octet_length(piece) - 1) AS i) b
$$;

-- Neighbours are joined, those of the lowest rank first, the leftmost of them first, until none can be.
CREATE OR REPLACE FUNCTION embeddb.byte_parts(model embeddb.transformer, word text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts text[];
    at integer;
    ids integer[] := ARRAY(SELECT t.id FROM embeddb.transformer_token t
                            WHERE t.encoder = model.encoder AND t.token = word AND t.whole);
BEGIN
    IF cardinality(ids) = 1 THEN
        RETURN ids;
    END IF;
    parts := string_to_array(word, NULL);
    LOOP
        SELECT p.place INTO at
          FROM (SELECT u.part, u.place, lead(u.part) OVER (ORDER BY u.place) AS next
                  FROM unnest(parts) WITH ORDINALITY AS u (part, place)) p
          JOIN embeddb.transformer_merge m ON m.encoder = model.encoder AND m.first = p.part AND m.second = p.next
         ORDER BY m.rank, p.place LIMIT 1;
        EXIT WHEN NOT FOUND;
        parts := parts[:at - 1] || (parts[at] || parts[at + 1]) || parts[at + 2 :];
    END LOOP;
    RETURN ARRAY(SELECT coalesce(t.id, model.unknown)
                   FROM unnest(parts) WITH ORDINALITY AS u (part, place)
                   LEFT JOIN embeddb.transformer_token t ON t.encoder = model.encoder AND t.token = u.part
                  ORDER BY u.place);
END $$;
