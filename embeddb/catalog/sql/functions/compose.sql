-- From the sources of a row to its text, as embeddb.sources.text has it.

-- Is there nothing to see in this text? Whitespace in Unicode's sense, and what has no width, is blank.
CREATE OR REPLACE FUNCTION embeddb.is_blank(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT value IS NULL OR NOT value ~
        '[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u00ad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]'
        COLLATE "C"
$$;

-- The text to embed, or NULL where every source is blank. `given` are the values of `sources`, in order. Without a
-- template those that are not blank are joined by a newline; in a template {name} is a source and NULL is nothing.
CREATE OR REPLACE FUNCTION embeddb.compose(given text[], sources text[], template text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM unnest(given) AS u (v) WHERE NOT embeddb.is_blank(u.v)) THEN NULL
        WHEN template IS NULL THEN
            (SELECT string_agg(u.v, E'\n' ORDER BY u.i) FROM unnest(given) WITH ORDINALITY AS u (v, i)
              WHERE NOT embeddb.is_blank(u.v))
        ELSE
            (SELECT string_agg(CASE WHEN p.p[1] = '{{' THEN '{' WHEN p.p[1] = '}}' THEN '}'
                                    WHEN p.p[1] LIKE '{%' THEN coalesce(given[array_position(sources, p.p[2])], '')
                                    ELSE p.p[1] END, '' ORDER BY p.i)
               FROM regexp_matches(template COLLATE "C", '(\{\{|\}\}|\{([^{}]*)\}|[^{}]+)', 'g') WITH ORDINALITY AS p (p, i))
    END
$$;
