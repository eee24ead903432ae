-- Declaring an embedding to the database, and taking it back.

-- Where this database keeps pgvector, or an error that says how to get it.
CREATE OR REPLACE FUNCTION embeddb.pgvector_schema() RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place name := (SELECT n.nspname FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
                    WHERE x.extname = 'vector');
BEGIN
    IF place IS NULL THEN
        RAISE EXCEPTION 'the pgvector extension is not installed in this database'
            USING ERRCODE = 'EB003', HINT = 'Run CREATE EXTENSION vector.';
    END IF;
    RETURN place;
END $$;

-- Registers an embedding by its spec (EmbeddingSpec's JSON), or brings its registration up to date, and makes its
-- triggers. Idempotent; a repetition takes no lock on the table. Rows that are already there are left alone: call
-- embeddb.backfill for them. A table without a schema in the spec is looked up along the caller's search_path.
-- The caller must own the table. Returns the embedding's id.
--
-- Vectors that are there are of the encoder, the sources and the template that were registered. Where the sources or the
-- template differ now, every row is queued. Another encoder is refused, but while the change to it, or from it, is under
-- way (embeddb.expand): then the registration stays as it is. The same encoder run otherwise (embeddb.identity_of) is
-- noted, for workers to run it so.
CREATE OR REPLACE FUNCTION embeddb.register(
    spec jsonb, fingerprint text DEFAULT NULL, path name[] DEFAULT current_schemas(false)
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$ SELECT embeddb.put(spec, fingerprint, path, false) $$;

-- What of an encoder's configuration makes its vectors. How and where they are made may change, and it stays the same
-- encoder: of those types that are built in, whose settings are known (embeddb.encoders.identity has the same list).
CREATE OR REPLACE FUNCTION embeddb.identity_of(config jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (config ->> 'type' = ANY ('{als,clip,deep-speaker,gru4rec,hashing,item2vec,module,openai,reduced,sentence-transformer,
                                   transformer,vision,words,x-vector}')) IS NOT TRUE THEN
        RETURN config;
    END IF;
    IF jsonb_typeof(config -> 'encoder') = 'object' THEN  -- one that is within this one
        config := config || jsonb_build_object('encoder', embeddb.identity_of(config -> 'encoder'));
    END IF;
    RETURN config - '{device,local_files_only,api_key_env,base_url,batch_characters,batch_size,concurrency,encoding_format,
                      max_wait,timeout}'::text[];
END $$;

-- Is this encoder, of the catalog, the one that a spec declares?
CREATE OR REPLACE FUNCTION embeddb.is_encoder(encoder integer, spec jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM embeddb.encoder x WHERE x.id = is_encoder.encoder AND x.dim = (spec ->> 'dim')::integer
                      AND embeddb.identity_of(x.config) = embeddb.identity_of(spec -> 'encoder'))
$$;

-- The same; with `replace` another encoder is taken, and every row is queued for it.
CREATE OR REPLACE FUNCTION embeddb.put(spec jsonb, fingerprint text, path name[], replace boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before embeddb.embedding;
    filled boolean := false;
    table_name text := spec ->> 'table';
    called text := concat_ws('.', spec ->> 'schema', spec ->> 'table', spec ->> 'column');
    target regclass;
    keys name[];
    sources name[] := ARRAY(SELECT jsonb_array_elements_text(spec -> 'sources'));
    vector_name name := spec ->> 'column';
    names name[];
    encoder_id integer;
    taken integer;
    c record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('embeddb.register'));
    PERFORM embeddb.pgvector_schema();
    SELECT r.oid INTO target
      FROM unnest(CASE WHEN spec ->> 'schema' IS NULL THEN path ELSE ARRAY[(spec ->> 'schema')::name] END)
           WITH ORDINALITY AS p (schema, place)
      JOIN pg_namespace n ON n.nspname = p.schema
      JOIN pg_class r ON r.relnamespace = n.oid AND r.relname = table_name AND r.relkind IN ('r', 'p')
     ORDER BY p.place LIMIT 1;
    IF target IS NULL THEN
        RAISE EXCEPTION '%: there is no such table as %', called, table_name
            USING ERRCODE = 'EB001', HINT = 'Create the table first, or name its schema.';
    END IF;
    SELECT array_agg(a.attname ORDER BY k.place) INTO keys
      FROM pg_index i
     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
     WHERE i.indrelid = target AND i.indisprimary AND k.place <= i.indnkeyatts;
    IF keys IS NULL THEN
        RAISE EXCEPTION '%: the table % has no primary key', called, target
            USING ERRCODE = 'EB001', HINT = 'A job names its row by the primary key: add one.';
    END IF;
    PERFORM embeddb.check_columns(called, target, keys, sources, vector_name, spec);

    SELECT e.id INTO taken FROM embeddb.embedding e
     WHERE e.relation = target AND (embeddb.columns(e.id)).vector = vector_name;
    SELECT * INTO before FROM embeddb.embedding e WHERE e.id = taken;
    IF embeddb.is_encoder(before.encoder, spec) THEN
        encoder_id := before.encoder;
        UPDATE embeddb.encoder x
           SET config = spec -> 'encoder', fingerprint = coalesce(put.fingerprint, x.fingerprint)
         WHERE x.id = encoder_id
           AND (x.config, x.fingerprint) IS DISTINCT FROM (spec -> 'encoder', coalesce(put.fingerprint, x.fingerprint))
           AND NOT EXISTS (SELECT FROM embeddb.encoder o
                            WHERE o.id <> x.id AND o.dim = x.dim AND md5(o.config::text) = md5((spec -> 'encoder')::text));
    ELSIF EXISTS (SELECT FROM embeddb.reembedding r JOIN embeddb.embedding s ON s.id = r.shadow
                   WHERE r.serving = taken AND embeddb.is_encoder(s.encoder, put.spec)) THEN
        RETURN taken;
    ELSE
        INSERT INTO embeddb.encoder AS x (config, dim, fingerprint)
        VALUES (spec -> 'encoder', (spec ->> 'dim')::integer, put.fingerprint)
        ON CONFLICT (md5(config::text), dim)
        DO UPDATE SET fingerprint = coalesce(excluded.fingerprint, x.fingerprint)
        RETURNING x.id INTO encoder_id;
    END IF;

    names := embeddb.distinct_names(keys || sources || vector_name);
    IF taken IS NULL THEN
        taken := ('x' || left(md5(called), 8))::bit(32)::integer & 2147483647;
        WHILE EXISTS (SELECT FROM embeddb.embedding e WHERE e.id = taken) LOOP
            taken := (taken + 1) & 2147483647;
        END LOOP;
    ELSE
        c := embeddb.columns(taken);
        IF encoder_id <> before.encoder OR c.sources <> sources
           OR before.spec ->> 'template' IS DISTINCT FROM spec ->> 'template' THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NOT NULL)', target, vector_name) INTO filled;
        END IF;
        IF filled AND encoder_id <> before.encoder AND NOT replace THEN
            RAISE EXCEPTION '%: its vectors are by another encoder: %, not %', called,
                (SELECT x.config FROM embeddb.encoder x WHERE x.id = before.encoder), spec -> 'encoder'
                USING ERRCODE = 'EB001', HINT = 'Change it by embeddb reembed, or by op.expand_embedding in a migration.';
        END IF;
        IF (c.keys, c.sources) IS DISTINCT FROM (keys, sources) THEN
            PERFORM embeddb.disarm(taken);
        END IF;
    END IF;
    INSERT INTO embeddb.embedding AS e (id, relation, encoder, spec, key_at, source_at, vector_at, columns, registered_at)
    VALUES (taken, target, encoder_id, spec,
            ARRAY(SELECT array_position(names, k) FROM unnest(keys) WITH ORDINALITY AS u (k, place) ORDER BY place),
            ARRAY(SELECT array_position(names, s) FROM unnest(sources) WITH ORDINALITY AS u (s, place) ORDER BY place),
            array_position(names, vector_name), names, clock_timestamp())  -- one transaction may register several
    ON CONFLICT (id) DO UPDATE
       SET encoder = excluded.encoder, spec = excluded.spec, key_at = excluded.key_at,
           source_at = excluded.source_at, vector_at = excluded.vector_at, columns = excluded.columns
     WHERE (e.encoder, e.spec, e.columns, e.source_at) IS DISTINCT FROM
           (excluded.encoder, excluded.spec, excluded.columns, excluded.source_at);
    PERFORM embeddb.refresh(taken);
    IF filled THEN
        PERFORM embeddb.backfill(embeddb.name(taken), true);
    END IF;
    PERFORM embeddb.remake_functions(target)
      FROM embeddb.embedding o WHERE o.relation = target AND o.id <> taken LIMIT 1;
    RETURN taken;
END $$;

-- Refuses what could not work, with the name of the embedding and the remedy.
CREATE OR REPLACE FUNCTION embeddb.check_columns(
    called text, target regclass, keys name[], sources name[], vector name, spec jsonb
) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    absent text := (SELECT string_agg(n, ', ') FROM unnest(sources || vector) AS n
                     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = n
                                          AND a.attnum > 0 AND NOT a.attisdropped));
    wanted text := format('%I.%I', embeddb.pgvector_schema(), spec ->> 'storage');
    found text;
    odd text;
BEGIN
    IF absent IS NOT NULL THEN
        RAISE EXCEPTION '%: the table % has no column %', called, target, absent
            USING ERRCODE = 'EB001', HINT = 'Add the column first.';
    END IF;
    SELECT format_type(a.atttypid, a.atttypmod) INTO found FROM pg_attribute a
     WHERE a.attrelid = target AND a.attname = vector;
    IF found IS DISTINCT FROM format('%s(%s)', wanted, spec ->> 'dim') THEN
        RAISE EXCEPTION '%: the column is of type %, and the declaration says %(%)',
            called, found, spec ->> 'storage', spec ->> 'dim'
            USING ERRCODE = 'EB001', HINT = 'Migrate the column, or change the declaration.';
    END IF;
    SELECT string_agg(a.attname, ', ') INTO odd FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
     WHERE a.attrelid = target AND a.attname = ANY (keys) AND y.typcategory IN ('A', 'C', 'P');
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION '%: the key column % is of an array or row type', called, odd
            USING ERRCODE = 'EB001', HINT = 'A key is made of plain values.';
    END IF;
    SELECT string_agg(a.attname, ', ') INTO odd FROM pg_attribute a
     WHERE a.attrelid = target AND a.attname = ANY (sources) AND a.attgenerated <> '';
    IF odd IS NOT NULL AND spec ->> 'on_update' = 'clear' THEN
        RAISE EXCEPTION '%: on_update "clear" cannot watch the generated column %', called, odd
            USING ERRCODE = 'EB001', HINT = 'Use on_update "keep", or the columns that it is generated from.';
    END IF;
END $$;

-- Takes an embedding back: triggers, functions, jobs and failures go; the table, its column and its vectors stay.
CREATE OR REPLACE FUNCTION embeddb.unregister(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('embeddb.register'));
    PERFORM embeddb.unregister(embeddb.find(name));
END $$;

-- The same by id, which works when the table is gone.
CREATE OR REPLACE FUNCTION embeddb.unregister(embedding integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    used integer := (SELECT e.encoder FROM embeddb.embedding e WHERE e.id = unregister.embedding);
    target regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = unregister.embedding);
BEGIN
    PERFORM embeddb.disarm(embedding);
    PERFORM embeddb.drop_functions(embedding);
    DELETE FROM embeddb.job j WHERE j.embedding = unregister.embedding;
    DELETE FROM embeddb.failure f WHERE f.embedding = unregister.embedding;
    DELETE FROM embeddb.embedding e WHERE e.id = unregister.embedding;
    PERFORM embeddb.remake_functions(target);
    DELETE FROM embeddb.encoder x WHERE x.id = used
       AND NOT EXISTS (SELECT FROM embeddb.embedding e WHERE e.encoder = used)
       AND NOT EXISTS (SELECT FROM embeddb.transformer t WHERE t.encoder = used)
       AND NOT EXISTS (SELECT FROM embeddb.fast_encoder f WHERE f.encoder = used);
END $$;

-- Vectors that an encoder made before its fingerprint changed are not its own any more.
CREATE OR REPLACE FUNCTION embeddb.on_fingerprint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM embeddb.query_cache c WHERE c.encoder = new.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER fingerprint AFTER UPDATE OF fingerprint ON embeddb.encoder
FOR EACH ROW WHEN (old.fingerprint IS NOT NULL AND old.fingerprint IS DISTINCT FROM new.fingerprint)
EXECUTE FUNCTION embeddb.on_fingerprint();
