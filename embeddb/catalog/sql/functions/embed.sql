-- Texts to vectors in SQL alone.

-- The vector of a query, by the encoder of an embedding: as it was remembered, else by the encoder's transformer, else
-- by its fast encoder. `mode`: 'exact' for what equals the encoder (a distilled one only comes near it), 'fast' for a
-- fast encoder alone. NULL for a NULL query, and where a fast encoder knows none of the words. Cast it for a column in
-- half precision: embeddb.embed(…)::halfvec(384).
--
-- Stable, so an index serves a distance to it. Without an index Postgres calls it once a row, so it keeps its results
-- for the statement: as open cursors over one row, the only memory of a transaction that a read-only one, a hot standby
-- and a parallel worker may write to. A caller may have opened cursors of these names himself: what they would run, they
-- would run as this function's owner. So it reads none but its own, and no value but of its own types, which no cast of
-- the caller's turns into others.
CREATE OR REPLACE FUNCTION embeddb.embed(embedding text, query text, mode text DEFAULT NULL)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Quoted, so that no text of the one is taken for two of the others, nor NULL for nothing.
    what CONSTANT text := format('%L %L %L', embedding, mode, query);
    asked CONSTANT text := statement_timestamp() || what;
    memo refcursor := 'embeddb ' || md5(what);
    result @extschema:vector@.vector;
    kept record;
    old record;
BEGIN
    IF query IS NULL THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM pg_cursor() c WHERE c.name = memo::text AND c.statement = 'SELECT asked, result') THEN
        FETCH ABSOLUTE 1 FROM memo INTO kept;
        IF (pg_typeof(kept.asked), pg_typeof(kept.result)) = (pg_typeof(asked), pg_typeof(result)) THEN
            IF kept.asked = asked THEN
                RETURN kept.result;
            END IF;
        END IF;
    END IF;
    result := embeddb.embed_anew(embedding, query, mode);
    -- Those of earlier statements go, and all where one statement has many.
    FOR old IN SELECT c.name FROM pg_cursor() c
                WHERE c.name LIKE 'embeddb %' AND (c.name = memo::text OR c.creation_time < statement_timestamp()
                      OR (SELECT count(*) FROM pg_cursor() k WHERE k.name LIKE 'embeddb %') > 8) LOOP
        DECLARE
            gone refcursor := old.name;
        BEGIN
            CLOSE gone;
        END;
    END LOOP;
    OPEN memo SCROLL FOR SELECT asked, result;
    RETURN result;
END $$;

-- The same without a memory.
CREATE OR REPLACE FUNCTION embeddb.embed_anew(embedding text, query text, mode text)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record;
    model embeddb.transformer;
    fast embeddb.fast_encoder;
    result @extschema:vector@.vector;
BEGIN
    IF mode NOT IN ('exact', 'fast') THEN
        RAISE EXCEPTION 'embeddb.embed knows the modes exact and fast, and not %', quote_literal(mode)
            USING ERRCODE = 'EB004';
    END IF;
    SELECT d.id AS embedding, x.id, x.fingerprint, x.config INTO STRICT e
      FROM embeddb.embedding d JOIN embeddb.encoder x ON x.id = d.encoder WHERE d.id = embeddb.find(embedding);
    IF mode IS DISTINCT FROM 'fast' THEN
        SELECT c.vector INTO result FROM embeddb.query_cache c
         WHERE c.encoder = e.id AND md5(c.query) = md5(embed_anew.query) AND c.query = embed_anew.query;
        IF FOUND THEN
            RETURN result;
        END IF;
        SELECT * INTO model FROM embeddb.transformer t WHERE t.encoder = e.id AND t.fingerprint = e.fingerprint;
        IF FOUND THEN
            RETURN embeddb.transformer_embed(model, query, model.query_prompt);
        END IF;
    END IF;
    -- Word vectors in SQL are the encoder itself; what was distilled only comes near it.
    SELECT * INTO fast FROM embeddb.fast_encoder f
     WHERE f.encoder = e.id AND f.fingerprint = e.fingerprint AND (f.embedding IS NULL OR f.embedding = e.embedding)
       AND (f.embedding IS NULL OR mode IS DISTINCT FROM 'exact')
     ORDER BY f.embedding NULLS FIRST LIMIT 1;
    IF FOUND THEN
        RETURN embeddb.fast_embed(fast, query);
    END IF;
    RAISE EXCEPTION 'this database cannot embed a text for %', embedding
        USING ERRCODE = 'EB004',
              DETAIL = CASE WHEN EXISTS (SELECT FROM embeddb.transformer t
                                          WHERE t.encoder = e.id AND t.fingerprint IS DISTINCT FROM e.fingerprint)
                              OR EXISTS (SELECT FROM embeddb.fast_encoder f
                                          WHERE f.encoder = e.id AND f.fingerprint IS DISTINCT FROM e.fingerprint)
                            THEN 'What was installed for it is of an older version of its encoder.'
                            WHEN mode = 'fast' THEN 'No fast encoder is installed for it.'
                            ELSE format('No vector of this text is remembered, and its encoder (%s) is not installed.',
                                        coalesce(e.config ->> 'model', e.config ->> 'type')) END,
              HINT = concat('Pass a vector', CASE WHEN embeddb.has_sql(e.id)
                                                        AND (mode IS DISTINCT FROM 'fast' OR e.config ->> 'type' = 'words')
                                                  THEN ', or run embeddb sql install ' || embedding END,
                            CASE WHEN mode IS DISTINCT FROM 'exact' THEN ', or run embeddb distill ' || embedding END, '.');
END $$;

-- Is the encoder of a kind that embeddb sql install knows?
CREATE OR REPLACE FUNCTION embeddb.has_sql(encoder integer) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT x.config ->> 'type' IN ('sentence-transformer', 'words') FROM embeddb.encoder x WHERE x.id = encoder
$$;

-- The vector of a text by a transformer in the database, after `prompt`.
CREATE OR REPLACE FUNCTION embeddb.transformer_embed(model embeddb.transformer, query text, prompt text)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN embeddb.transformer_forward(model, embeddb.tokenize(model, prompt || query));
END $$;

-- Has embeddb.embed know the vector of a query from now on. The vector is the encoder's own: nothing can check it.
CREATE OR REPLACE FUNCTION embeddb.remember(embedding text, query text, vector @extschema:vector@.vector) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    e record;
BEGIN
    SELECT x.id, x.dim INTO STRICT e
      FROM embeddb.embedding d JOIN embeddb.encoder x ON x.id = d.encoder WHERE d.id = embeddb.find(remember.embedding);
    IF e.dim <> @extschema:vector@.vector_dims(remember.vector) THEN
        RAISE EXCEPTION '% has vectors of % dimensions, not of %', remember.embedding, e.dim,
            @extschema:vector@.vector_dims(remember.vector) USING ERRCODE = 'EB004';
    END IF;
    INSERT INTO embeddb.query_cache AS c (encoder, query, vector) VALUES (e.id, remember.query, remember.vector)
    ON CONFLICT (encoder, md5(query)) DO UPDATE SET query = excluded.query, vector = excluded.vector, used_at = now();
END $$;
