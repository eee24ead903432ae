-- From a text to the ids of a transformer's tokens: WordPiece (Devlin et al. 2019) and byte pair encoding over bytes
-- (Radford et al. 2019), equal to the library `tokenizers`. Patterns are matched in collation "C", where they mean the
-- same in every database; what is beyond ASCII is looked up in embeddb.transformer_character, which was made by
-- asking that library about every character.

-- The ids of a text's tokens, with those that go around every text, cut to what the model reads. A long text is taken
-- as far as that, to the end of a word: no tokeniser here looks across a blank after a letter, but for special tokens.
CREATE OR REPLACE FUNCTION embeddb.tokenize(model embeddb.transformer, query text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    room CONSTANT integer := model.max_tokens - cardinality(model.before_text) - cardinality(model.after_text);
    reach integer := CASE WHEN strpos(model.special, '\ ') = 0 OR model.special IS NULL THEN 32 * model.max_tokens END;
    stop integer;
    rest text;
    found text;
    start integer;
    token integer;
    ids integer[];
BEGIN
    LOOP
        stop := CASE WHEN length(query) > reach THEN regexp_instr(query COLLATE "C", '[!-~] ', reach) ELSE 0 END;
        rest := CASE WHEN stop > 0 THEN left(query, stop) ELSE query END;
        ids := '{}';
        -- Special tokens count as such wherever they stand, in a user's text too.
        LOOP
            found := CASE WHEN model.special IS NOT NULL THEN substring(rest FROM model.special COLLATE "C") END;
            EXIT WHEN found IS NULL OR cardinality(ids) >= room;
            start := strpos(rest, found);
            ids := ids || embeddb.token_ids(model, left(rest, start - 1));
            token := (SELECT t.id FROM embeddb.transformer_token t
                       WHERE t.encoder = model.encoder AND t.token = btrim(found, E' \t\n\r'));
            IF token IS NULL AND cardinality(ids) < room THEN
                RAISE EXCEPTION 'this text cannot be embedded in SQL by %: % in it stands for no text to the model',
                    model.name, quote_literal(found)
                    USING ERRCODE = 'EB004', HINT = 'Embed it in Python, and have it remembered with embeddb.remember.';
            END IF;
            ids := ids || token;
            rest := substr(rest, start + length(found));
        END LOOP;
        IF cardinality(ids) < room THEN
            ids := ids || embeddb.token_ids(model, rest);
        END IF;
        EXIT WHEN stop = 0 OR cardinality(ids) >= room;
        reach := 8 * reach;
    END LOOP;
    RETURN model.before_text || ids[:room] || model.after_text;
END $$;

-- The same for text between special tokens; not all of them where there are more than the model reads.
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
        EXIT WHEN cardinality(ids) >= model.max_tokens;
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

-- GPT-2's way to write bytes as printable characters: those of Latin 1, and others for the 67 that Latin 1 has none for.
CREATE OR REPLACE FUNCTION embeddb.byte_characters(piece text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT translate(convert_from(convert_to(piece, 'UTF8'), 'LATIN1'),
                     U&'\0001\0002\0003\0004\0005\0006\0007\0008\0009\000A\000B\000C\000D\000E\000F\0010\0011\0012\0013\0014\0015\0016'
                       '\0017\0018\0019\001A\001B\001C\001D\001E\001F\0020\007F\0080\0081\0082\0083\0084\0085\0086\0087\0088\0089\008A'
                       '\008B\008C\008D\008E\008F\0090\0091\0092\0093\0094\0095\0096\0097\0098\0099\009A\009B\009C\009D\009E\009F\00A0\00AD',
                     'āĂăĄąĆćĈĉĊċČčĎďĐđĒēĔĕĖėĘęĚěĜĝĞğĠġĢģĤĥĦħĨĩĪīĬĭĮįİıĲĳĴĵĶķĸĹĺĻļĽľĿŀŁłŃ')
$$;

-- The parts of a word. Every step of joining looks at all of it, so a long one (a sentence, where no blanks are written)
-- goes in pieces, parted between two bytes that no token has beside each other; and not beyond what the model reads.
CREATE OR REPLACE FUNCTION embeddb.byte_parts(model embeddb.transformer, word text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    piece CONSTANT integer := 200;
    rest text := word;
    size integer;
    ids integer[] := '{}';
BEGIN
    WHILE rest <> '' AND cardinality(ids) < model.max_tokens LOOP
        size := least(piece, length(rest));
        WHILE size < length(rest) AND EXISTS (
            SELECT FROM embeddb.transformer_token t
             WHERE t.encoder = model.encoder AND strpos(t.token, substr(rest, size, 2)) > 0) LOOP
            size := size + 1;
        END LOOP;
        ids := ids || embeddb.joined_bytes(model, left(rest, size));
        rest := substr(rest, size + 1);
    END LOOP;
    RETURN ids;
END $$;

-- Neighbours are joined, those of the lowest rank first, the leftmost of them first, until none can be.
CREATE OR REPLACE FUNCTION embeddb.joined_bytes(model embeddb.transformer, word text) RETURNS integer[]
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
