-- Texts to vectors in SQL alone.

-- The vector of a text by a transformer in the database, after `prompt`.
CREATE OR REPLACE FUNCTION embeddb.transformer_embed(model embeddb.transformer, query text, prompt text)
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN embeddb.transformer_forward(model, embeddb.tokenize(model, prompt || query));
END $$;
