-- What an embedding is made of, by today's names; and the pieces of SQL that are composed from them.
--
-- columns, name and find are SECURITY DEFINER so that views over them serve readers without a right on the tables of
-- the catalog; they tell names alone, as pg_catalog does to everyone.

-- The columns of an embedding as they are called now. The column list of its "key" trigger is the truth: it follows
-- renames, and pg_dump writes it by name. Without that trigger, the names last seen.
CREATE OR REPLACE FUNCTION embeddb.columns(embedding integer, OUT keys name[], OUT sources name[], OUT vector name)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e embeddb.embedding;
    names name[];
    place smallint;
BEGIN
    SELECT * INTO STRICT e FROM embeddb.embedding x WHERE x.id = columns.embedding;
    SELECT array_agg(a.attname ORDER BY l.place) INTO names
      FROM pg_trigger t
     CROSS JOIN LATERAL unnest(t.tgattr::int2[]) WITH ORDINALITY AS l (number, place)
      JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = l.number
     WHERE t.tgrelid = e.relation AND t.tgfoid = to_regprocedure(format('embeddb.on_key_%s()', e.id));
    names := coalesce(names, e.columns);
    keys := '{}';
    FOREACH place IN ARRAY e.key_at LOOP
        keys := keys || names[place];
    END LOOP;
    sources := '{}';
    FOREACH place IN ARRAY e.source_at LOOP
        sources := sources || names[place];
    END LOOP;
    vector := names[e.vector_at];
END $$;

-- The key of row `alias` as an SQL value: the column itself, or a JSON array of several.
CREATE OR REPLACE FUNCTION embeddb.key_sql(keys name[], alias text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN cardinality(keys) = 1 THEN format('%s.%I', alias, keys[1])
                ELSE format('jsonb_build_array(%s)',
                            (SELECT string_agg(format('%s.%I', alias, k), ', ' ORDER BY place)
                               FROM unnest(keys) WITH ORDINALITY AS u (k, place))) END;
END $$;

-- The same where it runs with the rights of the catalog's owner. A type's owner may give it a cast to json, which to_jsonb
-- and its like run: so of a type that users made it is the text, by the type's output function.
CREATE OR REPLACE FUNCTION embeddb.own_key_sql(relation regclass, keys name[], alias text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE types AS (
        SELECT k.name, k.place, y.oid, y.typtype, y.typbasetype
          FROM unnest(keys) WITH ORDINALITY AS k (name, place)
          JOIN pg_attribute a ON a.attrelid = relation AND a.attname = k.name
          JOIN pg_type y ON y.oid = a.atttypid
         UNION ALL
        SELECT t.name, t.place, y.oid, y.typtype, y.typbasetype
          FROM types t JOIN pg_type y ON y.oid = t.typbasetype AND t.typtype = 'd'
    )
    SELECT format(CASE WHEN cardinality(keys) = 1 THEN '%s' ELSE 'jsonb_build_array(%s)' END, string_agg(
               -- Postgres's own types have numbers below that.
               format(CASE WHEN t.oid < 16384 THEN '%s.%I' ELSE 'concat(%s.%I)' END, alias, t.name), ', ' ORDER BY t.place))
      FROM types t WHERE t.typtype <> 'd'
$$;

-- The columns of a primary key in order: type; type without a length, for casts ("character" would cut a text to its first
-- letter); and the operator by which the key's index tells values equal, wherever it was made.
CREATE OR REPLACE FUNCTION embeddb.key_columns(relation regclass, keys name[])
RETURNS TABLE (place integer, name name, type text, bare_type text, equal text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.place::integer, k.name, format_type(a.atttypid, NULL), format_type(a.atttypid, -1),
           format('OPERATOR(%I.%s)', n.nspname, o.oprname)
      FROM unnest(keys) WITH ORDINALITY AS k (name, place)
      JOIN pg_attribute a ON a.attrelid = relation AND a.attname = k.name
      JOIN pg_index i ON i.indrelid = relation AND i.indisprimary
     CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS c (number, class)
      JOIN pg_opclass p ON p.oid = c.class
      JOIN pg_amop m ON m.amopfamily = p.opcfamily AND m.amopmethod = p.opcmethod AND m.amopstrategy = 3
                    AND m.amoplefttype = p.opcintype AND m.amoprighttype = p.opcintype
      JOIN pg_operator o ON o.oid = m.amopopr
      JOIN pg_namespace n ON n.oid = o.oprnamespace
     WHERE c.number = a.attnum
     ORDER BY k.place
$$;

-- The condition that row `alias` has the key whose columns' values are the expressions `parts`.
CREATE OR REPLACE FUNCTION embeddb.key_is_sql(relation regclass, keys name[], alias text, parts text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%s.%I %s %s', alias, k.name, k.equal, parts[k.place]), ' AND ' ORDER BY k.place)
      FROM embeddb.key_columns(relation, keys) AS k
$$;

-- The same for the key that the JSON expression `key` holds. The primary key's index serves it whatever the type.
CREATE OR REPLACE FUNCTION embeddb.match_sql(relation regclass, keys name[], alias text, key text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT embeddb.key_is_sql(relation, keys, alias, array_agg(format(
               '(%s %s)::%s', key, CASE WHEN cardinality(keys) = 1 THEN '#>> ''{}''' ELSE format('->> %s', k.place - 1) END,
               k.bare_type) ORDER BY k.place))
      FROM embeddb.key_columns(relation, keys) AS k
$$;

-- Is every source of row `alias` NULL, or a short text of nothing but ASCII whitespace? What is blank in another way
-- counts as text here: it gets a job, and the worker, who knows all of Unicode's blanks, leaves the vector NULL.
-- octet_length does not fetch a long value. Of other types only NULL is blank: no cast of the table's owner is to run
-- with the rights of the catalog's.
CREATE OR REPLACE FUNCTION embeddb.blank_sql(relation regclass, sources name[], alias text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '(' || string_agg(
               CASE WHEN coalesce(nullif(y.typbasetype, 0), y.oid) = ANY ('{text,varchar,bpchar}'::regtype[])
                    THEN format('(%1$s.%2$I IS NULL OR octet_length(%1$s.%2$I::text) <= 64 '
                                'AND btrim(%1$s.%2$I::text, E'' \t\n\r\f\v'') = '''')', alias, s.name)
                    ELSE format('%s.%I IS NULL', alias, s.name) END, ' AND ' ORDER BY s.place) || ')'
      FROM unnest(sources) WITH ORDINALITY AS s (name, place)
      JOIN pg_attribute a ON a.attrelid = relation AND a.attname = s.name
      JOIN pg_type y ON y.oid = a.atttypid
$$;

-- What people call an embedding: table.column, with the schema where it was declared with one.
CREATE OR REPLACE FUNCTION embeddb.name(embedding integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN e.spec ->> 'schema' IS NULL THEN '' ELSE n.nspname || '.' END || c.relname || '.'
           || (embeddb.columns(e.id)).vector
      FROM embeddb.embedding e JOIN pg_class c ON c.oid = e.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE e.id = name.embedding
$$;

-- The embedding of that name, with or without its schema. Of none or of several, an error that lists what there is.
CREATE OR REPLACE FUNCTION embeddb.find(name text) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found integer[];
BEGIN
    SELECT array_agg(e.id) INTO found
      FROM embeddb.embedding e
      -- LIMIT: table by table through their index. Joined freely, all of pg_class would be read.
     CROSS JOIN LATERAL (SELECT r.relname, n.nspname FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
                          WHERE r.oid = e.relation LIMIT 1) c
     CROSS JOIN LATERAL embeddb.columns(e.id) x
     -- First what is cheap to tell: columns() looks up a trigger.
     WHERE strpos(find.name, c.relname || '.') > 0
       AND find.name IN (c.relname || '.' || x.vector, c.nspname || '.' || c.relname || '.' || x.vector);
    IF cardinality(found) = 1 THEN
        RETURN found[1];
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'several embeddings are called %', name
            USING ERRCODE = 'EB002', HINT = 'Write it with its schema: schema.table.column.';
    END IF;
    RAISE EXCEPTION 'no embedding is called %', name
        USING ERRCODE = 'EB002',
              HINT = coalesce('There are: ' || (SELECT string_agg(embeddb.name(e.id), ', ' ORDER BY 1)
                                                  FROM embeddb.embedding e) || '.',
                              'None is registered: call embeddb.register.');
END $$;
