-- Changing an embedding's encoder without downtime: expand, backfill, swap, contract.
--
--   expand     a second column and its registration; from now on every new row gets both vectors
--   (backfill  by workers, as ever; and the new column's index, built concurrently)
--   swap       one short transaction exchanges the names of the columns and of their indexes: SQL follows at once, and
--              so do sessions with embeddb's hooks, through embeddb.serving
--   roll_back  the same the other way round
--   contract   the old column goes; or, before a swap, `abandon`: the new one

-- The name that a column or an index has while it is not the one that serves, within 63 bytes.
CREATE OR REPLACE FUNCTION embeddb.aside_name(name text, suffix text) RETURNS name
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN octet_length(name) + octet_length(suffix) <= 63 THEN name || suffix
                ELSE left(md5(name), 24) || suffix END::name
$$;

-- The change of an embedding that is under way, or an error.
CREATE OR REPLACE FUNCTION embeddb.find_reembedding(embedding text, wanted text) RETURNS embeddb.reembedding
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r embeddb.reembedding;
BEGIN
    SELECT * INTO r FROM embeddb.reembedding x WHERE x.serving = embeddb.find(embedding);
    IF NOT FOUND THEN
        RAISE EXCEPTION '%: its encoder is not being changed', embedding
            USING ERRCODE = 'EB002', HINT = CASE wanted WHEN 'filling' THEN 'Begin with embeddb.expand, or embeddb reembed.'
                                                 ELSE 'After embeddb.contract there is no way back, but another change.' END;
    ELSIF r.state <> wanted THEN
        RAISE EXCEPTION '%: the change of its encoder is %, not %', embedding, r.state, wanted
            USING ERRCODE = 'EB002',
                  HINT = CASE wanted WHEN 'swapped' THEN 'Swap first.' ELSE 'Roll back, or contract.' END;
    END IF;
    RETURN r;
END $$;

-- From now on what was read of which encoder serves is out of date.
CREATE OR REPLACE FUNCTION embeddb.next_generation() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE embeddb.generation SET value = value + 1
$$;

-- Adds the second column for `spec` (the new declaration, EmbeddingSpec's JSON, of the same table and column), and queues
-- the rows that are there. Returns the name of the new embedding.
CREATE OR REPLACE FUNCTION embeddb.expand(spec jsonb, path name[] DEFAULT current_schemas(false)) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    called text := concat_ws('.', spec ->> 'schema', spec ->> 'table', spec ->> 'column');
    old integer := embeddb.find(called);
    e embeddb.embedding;
    aside name := embeddb.aside_name((embeddb.columns(old)).vector::text, '__next');
    granted text;
    made integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('embeddb.register'));
    SELECT * INTO STRICT e FROM embeddb.embedding x WHERE x.id = old;
    IF EXISTS (SELECT FROM embeddb.reembedding r WHERE old IN (r.serving, r.shadow)) THEN
        RAISE EXCEPTION '%: its encoder is being changed already', called
            USING ERRCODE = 'EB002', HINT = 'Swap and contract that change, or abandon it.';
    END IF;
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %I.%I(%s)', e.relation, aside, embeddb.pgvector_schema(),
                   spec ->> 'storage', (spec ->> 'dim')::integer);
    -- They exchange their names, and a comment is of a name.
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', e.relation, aside, (
        SELECT col_description(a.attrelid, a.attnum) FROM pg_attribute a
         WHERE a.attrelid = e.relation AND a.attname = (embeddb.columns(old)).vector));
    -- Rights to a column go with it, not with its name: who may read the one that serves may read the next.
    FOR granted IN
        SELECT format('GRANT %s (%I) ON %s TO %s%s', x.privilege_type, aside, e.relation,
                      CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                      CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) AS x
         WHERE a.attrelid = e.relation AND a.attname = (embeddb.columns(old)).vector
    LOOP
        EXECUTE granted;
    END LOOP;
    made := embeddb.register(spec || jsonb_build_object('column', aside, 'mode', 'queued', 'on_update', 'keep'), NULL, path);
    INSERT INTO embeddb.reembedding (serving, shadow, spec, started_at) VALUES (old, made, spec, clock_timestamp());
    PERFORM embeddb.backfill(embeddb.name(made));
    PERFORM embeddb.next_generation();
    RETURN embeddb.name(made);
END $$;

-- Exchanges the columns of an embedding whose new one is filled. At most `max_pending` rows may still wait for their new
-- vector: searches will find them only then. Where searches and writers that are under way do not end within 0.3 s it gives
-- up (55P03, lock_not_available): try again. Returns the name of the old embedding.
--
-- Applications look every half second whether a change has begun, and only then hold off exchanges while they search. So
-- the first exchange waits, without any lock, until all have had the time to look, and to end what they were at.
CREATE OR REPLACE FUNCTION embeddb.swap(embedding text, max_pending bigint DEFAULT 0) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r embeddb.reembedding := embeddb.find_reembedding(embedding, 'filling');
BEGIN
    PERFORM pg_sleep(greatest(0, 3 - extract(epoch FROM clock_timestamp() - r.started_at)));
    RETURN embeddb.exchange(r, max_pending);
END $$;

-- Exchanges them again. The old column was kept up to date meanwhile.
CREATE OR REPLACE FUNCTION embeddb.roll_back(embedding text, max_pending bigint DEFAULT 0) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r embeddb.reembedding := embeddb.find_reembedding(embedding, 'swapped');
BEGIN
    RETURN embeddb.exchange(r, max_pending);
END $$;

CREATE OR REPLACE FUNCTION embeddb.exchange(r embeddb.reembedding, max_pending bigint) RETURNS text
-- Gives way to whoever holds the table and waits for the gate, before that is a deadlock.
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    e embeddb.embedding;
    column_name name := (embeddb.columns(r.serving)).vector;
    aside name := (embeddb.columns(r.shadow)).vector;
    suffix text := CASE r.state WHEN 'filling' THEN '__old' ELSE '__next' END;
    away name := embeddb.aside_name(column_name::text, suffix);
    waiting bigint;
    invalid text;
    serving_indexes regclass[];
    shadow_indexes regclass[];
    names name[];
BEGIN
    SELECT * INTO STRICT e FROM embeddb.embedding x WHERE x.id = r.serving;
    SELECT string_agg(c.relname, ', ') INTO invalid FROM embeddb.vector_indexes(r.shadow) v
      JOIN pg_class c ON c.oid = v.index JOIN pg_index x ON x.indexrelid = v.index WHERE NOT x.indisvalid;
    IF invalid IS NOT NULL THEN
        RAISE EXCEPTION '%: the index % is not valid', embeddb.name(r.shadow), invalid
            USING ERRCODE = 'EB002', HINT = 'Build it to its end, or drop it and build it again.';
    END IF;
    IF EXISTS (SELECT FROM embeddb.vector_indexes(r.serving)) AND NOT EXISTS (SELECT FROM embeddb.vector_indexes(r.shadow)) THEN
        RAISE EXCEPTION '%: it has no index yet, and % has one', embeddb.name(r.shadow), embeddb.name(r.serving)
            USING ERRCODE = 'EB002', HINT = 'Build its index first, or searches would read the whole table.';
    END IF;
    LOCK TABLE embeddb.gate IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', e.relation);
    -- Nobody writes now: what has no vector here is queued, or has failed for the other encoder too.
    SELECT count(DISTINCT k.key) INTO waiting
      FROM embeddb.job j CROSS JOIN LATERAL jsonb_array_elements(j.keys) AS k (key) WHERE j.embedding = r.shadow;
    IF waiting > max_pending THEN
        RAISE EXCEPTION '%: % rows still wait for their new vector', embeddb.name(r.shadow), waiting
            USING ERRCODE = 'EB009', HINT = 'Let the workers finish and try again, or allow so many.';
    END IF;

    serving_indexes := ARRAY(SELECT v.index FROM embeddb.vector_indexes(r.serving) v ORDER BY v.index);
    shadow_indexes := ARRAY(SELECT v.index FROM embeddb.vector_indexes(r.shadow) v ORDER BY v.index);
    names := ARRAY(SELECT c.relname FROM unnest(serving_indexes) WITH ORDINALITY AS u (index, place)
                     JOIN pg_class c ON c.oid = u.index ORDER BY u.place);
    FOR i IN 1 .. coalesce(cardinality(serving_indexes), 0) LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', serving_indexes[i], embeddb.aside_name(names[i]::text, suffix));
    END LOOP;
    FOR i IN 1 .. least(cardinality(shadow_indexes), cardinality(names)) LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', shadow_indexes[i], names[i]);
    END LOOP;
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', e.relation, column_name, away);
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', e.relation, aside, column_name);

    INSERT INTO embeddb.reembedding AS x (serving, shadow, state, spec, started_at, swapped_at)
    VALUES (r.shadow, r.serving, CASE r.state WHEN 'filling' THEN 'swapped' ELSE 'filling' END, e.spec, r.started_at,
            CASE r.state WHEN 'filling' THEN clock_timestamp() END);
    DELETE FROM embeddb.reembedding x WHERE x.serving = r.serving;
    -- The short names of the table's functions belong to the embedding that was registered first.
    UPDATE embeddb.embedding x
       SET spec = CASE x.id WHEN r.shadow THEN r.spec
                            ELSE e.spec || jsonb_build_object('column', away, 'mode', 'queued', 'on_update', 'keep') END,
           registered_at = (SELECT o.registered_at FROM embeddb.embedding o
                             WHERE o.id = CASE x.id WHEN r.shadow THEN r.serving ELSE r.shadow END)
     WHERE x.id IN (r.serving, r.shadow);
    -- Their triggers are called after their columns: both go before either is made.
    PERFORM embeddb.disarm(r.shadow), embeddb.disarm(r.serving);
    PERFORM embeddb.refresh(r.shadow), embeddb.refresh(r.serving);
    PERFORM embeddb.make_functions(r.shadow), embeddb.make_functions(r.serving);
    PERFORM embeddb.next_generation();
    RETURN embeddb.name(r.serving);
END $$;

-- The old column goes, with its vectors and its index: there is no way back then.
CREATE OR REPLACE FUNCTION embeddb.contract(embedding text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r embeddb.reembedding := embeddb.find_reembedding(embedding, 'swapped');
BEGIN
    PERFORM embeddb.drop_shadow(r);
END $$;

-- The new column goes, before it ever served.
CREATE OR REPLACE FUNCTION embeddb.abandon(embedding text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r embeddb.reembedding := embeddb.find_reembedding(embedding, 'filling');
BEGIN
    PERFORM embeddb.drop_shadow(r);
END $$;

CREATE OR REPLACE FUNCTION embeddb.drop_shadow(r embeddb.reembedding) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = r.shadow);
    aside name := (embeddb.columns(r.shadow)).vector;
BEGIN
    DELETE FROM embeddb.reembedding x WHERE x.serving = r.serving;
    PERFORM embeddb.unregister(r.shadow);
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target, aside);
    PERFORM embeddb.next_generation();
END $$;

-- Which encoders serve, and which may next, for sessions that were started under another. The caller holds the gate.
--
-- In a transaction whose snapshot is from before an exchange there is no right answer: it reads the old encoder here, and
-- the new column by its name. Names by pg_identify_object_as_address are of this moment, whatever the snapshot: where
-- they differ, that is a serialization failure, which such transactions are repeated for.
CREATE OR REPLACE FUNCTION embeddb.serving(OUT name text, OUT encoder jsonb, OUT next jsonb)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM embeddb.embedding e
          JOIN pg_attribute a ON a.attrelid = e.relation AND a.attname = (embeddb.columns(e.id)).vector
         WHERE a.attname <> (pg_identify_object_as_address(1259, e.relation, a.attnum)).object_names[3])
    THEN
        RAISE EXCEPTION 'the encoder of an embedding was changed during this transaction'
            USING ERRCODE = 'serialization_failure', HINT = 'Repeat the transaction.';
    END IF;
    RETURN QUERY
    SELECT v.name, v.encoder, (SELECT s.encoder FROM embeddb.reembedding r JOIN embeddb.embeddings s ON s.id = r.shadow
                                WHERE r.serving = v.id)
      FROM embeddb.embeddings v
     WHERE NOT EXISTS (SELECT FROM embeddb.reembedding r WHERE r.shadow = v.id);
END $$;

-- The generation that encoders are in, and whether one is being changed and may be exchanged at any moment.
CREATE OR REPLACE FUNCTION embeddb.generation(OUT value bigint, OUT changing boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT g.value, EXISTS (SELECT FROM embeddb.reembedding) FROM embeddb.generation g
$$;

-- Until its transaction ends the caller sees no encoder exchanged.
CREATE OR REPLACE FUNCTION embeddb.hold() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE embeddb.gate IN ACCESS SHARE MODE;
END $$;
