-- Changing a registration by name, for migrations.

-- Changes what an embedding was registered with: `changes` are keys of its spec. Where the rows' text changes by it, or
-- the encoder, every row is queued. A change of encoder that shall not mix vectors meanwhile goes by embeddb.expand.
CREATE OR REPLACE FUNCTION embeddb.alter(embedding text, changes jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found integer := embeddb.find(embedding);
    before jsonb;
    wanted jsonb;
    template text;
BEGIN
    -- A source may be called otherwise by now than when it was registered.
    SELECT string_agg(CASE WHEN p.p[2] IS NULL THEN p.p[1] ELSE '{' || v.sources[array_position(s.old, p.p[2])] || '}' END,
                      '' ORDER BY p.i)
      INTO template
      FROM embeddb.embeddings v
     CROSS JOIN LATERAL (SELECT array_agg(o ORDER BY i) AS old
                           FROM jsonb_array_elements_text(v.spec -> 'sources') WITH ORDINALITY AS u (o, i)) AS s
     CROSS JOIN LATERAL regexp_matches(v.spec ->> 'template' COLLATE "C", '(\{\{|\}\}|\{([^{}]*)\}|[^{}]+)', 'g')
                        WITH ORDINALITY AS p (p, i)
     WHERE v.id = found;
    SELECT e.spec || jsonb_build_object('table', v."table", 'column', v."column", 'sources', to_jsonb(v.sources), 'template', template)
           || CASE WHEN e.spec ->> 'schema' IS NULL THEN '{}' ELSE jsonb_build_object('schema', v.schema) END
      INTO before
      FROM embeddb.embedding e JOIN embeddb.embeddings v USING (id) WHERE e.id = found;
    wanted := before || changes;
    RETURN embeddb.put(wanted, NULL, ARRAY(
        SELECT n.nspname FROM embeddb.embedding e JOIN pg_class c ON c.oid = e.relation
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE e.id = found), true);
END $$;

-- embeddb.disarm and embeddb.refresh by name.
CREATE OR REPLACE FUNCTION embeddb.disarm(embedding text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$ SELECT embeddb.disarm(embeddb.find(embedding)) $$;
CREATE OR REPLACE FUNCTION embeddb.refresh(embedding text) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$ SELECT embeddb.refresh(embeddb.find(embedding)) $$;
