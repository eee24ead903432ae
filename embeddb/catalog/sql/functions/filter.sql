-- From a filter as JSON to a condition. Columns are looked up and quoted, comparisons come from a list, and values stay in
-- the parameter that the statement is given: nothing of the filter's text becomes SQL but names that the table has.

-- The condition about row t that `filter` states; `param` is the parameter that will hold it. NULL for none.
CREATE OR REPLACE FUNCTION embeddb.filter_sql(relation regclass, filter jsonb, param text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
    c record;
    conditions text[] := '{}';
BEGIN
    IF filter IS NULL THEN
        RETURN NULL;
    ELSIF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'a filter is a JSON object of columns and values, not %', jsonb_typeof(filter)
            USING ERRCODE = 'EB005', HINT = 'Write it as {"year": 1950}.';
    END IF;
    FOR f IN SELECT j.key, j.value, embeddb.column_of(relation, j.key) AS name FROM jsonb_each(filter) AS j LOOP
        IF jsonb_typeof(f.value) = 'object' THEN
            IF f.value = '{}' THEN
                RAISE EXCEPTION 'the filter of % has no comparison', quote_ident(f.key)
                    USING ERRCODE = 'EB005', HINT = 'Write it as {"year": {">=": 1950}}.';
            END IF;
            FOR c IN SELECT j.key AS operator, j.value FROM jsonb_each(f.value) AS j LOOP
                conditions := conditions || embeddb.comparison_sql(
                    relation, f.name, c.operator, c.value, format('(%s -> %L -> %L)', param, f.key, c.operator));
            END LOOP;
        ELSE
            conditions := conditions || embeddb.comparison_sql(
                relation, f.name, CASE jsonb_typeof(f.value) WHEN 'array' THEN 'in' ELSE '=' END, f.value,
                format('(%s -> %L)', param, f.key));
        END IF;
    END LOOP;
    RETURN array_to_string(nullif(conditions, '{}'), ' AND ');
END $$;

-- One comparison of a column with the JSON expression `held`, whose value is `value`.
CREATE OR REPLACE FUNCTION embeddb.comparison_sql(relation regclass, name name, operator text, value jsonb, held text)
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- -1: without a length. As "character" a text would be cut to its first letter.
    type text := (SELECT format_type(a.atttypid, -1) FROM pg_attribute a
                   WHERE a.attrelid = relation AND a.attname = comparison_sql.name);
BEGIN
    IF operator NOT IN ('=', '<>', '<', '<=', '>', '>=', 'in', 'like', 'ilike') THEN
        RAISE EXCEPTION 'a filter knows no comparison %', quote_literal(operator)
            USING ERRCODE = 'EB005', HINT = 'There are: =, <>, <, <=, >, >=, in, like, ilike.';
    ELSIF (operator = 'in') <> (jsonb_typeof(value) = 'array') OR jsonb_typeof(value) = 'object' THEN
        RAISE EXCEPTION 'the filter of % compares by % with a JSON %', quote_ident(name), quote_literal(operator),
            jsonb_typeof(value) USING ERRCODE = 'EB005', HINT = '"in" takes a list, every other comparison a plain value.';
    ELSIF value = 'null' AND operator IN ('=', '<>') THEN
        RETURN format('t.%I IS %sNULL', name, CASE operator WHEN '<>' THEN 'NOT ' END);
    ELSIF operator NOT IN ('like', 'ilike')
          AND embeddb.comparison_operator(relation, name, CASE operator WHEN 'in' THEN '=' ELSE operator END) IS NULL THEN
        RAISE EXCEPTION 'the filter of % compares by %, which its type % does not have', quote_ident(name),
            quote_literal(operator), type USING ERRCODE = 'EB005', HINT = 'Write the condition in SQL: WHERE … ORDER BY … LIMIT.';
    ELSIF operator IN ('like', 'ilike') THEN
        RETURN format('t.%I::text OPERATOR(pg_catalog.%s) (%s #>> ''{}'')', name,
                      CASE operator WHEN 'like' THEN '~~' ELSE '~~*' END, held);
    END IF;
    PERFORM embeddb.check_values(relation, name, type, value);
    IF operator = 'in' THEN
        -- Arrays in an array would be one of more dimensions. A null in the list means rows without a value, as it does alone.
        RETURN format(CASE WHEN type LIKE '%[]' THEN '(t.%I %s ANY (SELECT u.v::%s FROM jsonb_array_elements_text(%s) AS u (v))%s)'
                           ELSE '(t.%I %s ANY (ARRAY(SELECT u.v::%s FROM jsonb_array_elements_text(%s) AS u (v)))%s)' END,
                      name, embeddb.comparison_operator(relation, name, '='), type, held,
                      CASE WHEN value @> '[null]' THEN format(' OR t.%I IS NULL', name) END);
    END IF;
    RETURN format('t.%I %s (%s #>> ''{}'')::%s', name, embeddb.comparison_operator(relation, name, operator), held, type);
END $$;

-- Refuses what is no value of a column's type, as far as that runs nobody else's code (Postgres's own types, and enums) and
-- Postgres can say so, which it can from 16 on. Else the cast says it, without the column.
CREATE OR REPLACE FUNCTION embeddb.check_values(relation regclass, name name, type text, value jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own boolean := (SELECT y.typtype = 'e' OR y.typtype = 'b' AND y.typnamespace = 'pg_catalog'::regnamespace
                      FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                     WHERE a.attrelid = relation AND a.attname = check_values.name);
    wrong text;
BEGIN
    IF own AND current_setting('server_version_num')::integer >= 160000 THEN
        SELECT v INTO wrong
          FROM jsonb_array_elements_text(CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE jsonb_build_array(value) END) AS v
         WHERE NOT pg_input_is_valid(v, type) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the filter of % has %, which is no %', quote_ident(name), quote_literal(wrong), type
                USING ERRCODE = 'EB005', HINT = 'Write a value as Postgres reads one of that type.';
        END IF;
    END IF;
END $$;

-- What a type is at last, where it is a domain, over another perhaps.
CREATE OR REPLACE FUNCTION embeddb.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE types AS (
        SELECT y.oid, y.typbasetype FROM pg_type y WHERE y.oid = type
        UNION ALL SELECT y.oid, y.typbasetype FROM types t JOIN pg_type y ON y.oid = t.typbasetype
    )
    SELECT t.oid FROM types t WHERE t.typbasetype = 0
$$;

-- The operator of a column's type, wherever it was made: that of its default order, as the type's owner means it. NULL
-- for a type without an order (json, xml, point).
CREATE OR REPLACE FUNCTION embeddb.comparison_operator(relation regclass, name name, operator text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((
        SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
          FROM pg_attribute a
          JOIN pg_opclass p ON p.opcintype = embeddb.base_type(a.atttypid) AND p.opcdefault
          JOIN pg_am m ON m.oid = p.opcmethod AND m.amname = 'btree'
          JOIN pg_amop s ON s.amopfamily = p.opcfamily AND s.amoplefttype = p.opcintype AND s.amoprighttype = p.opcintype
                        AND s.amopstrategy = CASE operator WHEN '<' THEN 1 WHEN '<=' THEN 2 WHEN '>=' THEN 4 WHEN '>' THEN 5
                                                           ELSE 3 END
          JOIN pg_operator e ON e.oid = s.amopopr
          JOIN pg_operator o ON o.oid = CASE operator WHEN '<>' THEN e.oprnegate ELSE e.oid END
          JOIN pg_namespace n ON n.oid = o.oprnamespace
         WHERE a.attrelid = relation AND a.attname = comparison_operator.name
    ), (
        -- Its type is compared as another (varchar as text), or as one of a kind (arrays, enums, ranges).
        SELECT format('OPERATOR(pg_catalog.%s)', operator)
          FROM pg_attribute a
          JOIN pg_type y ON y.oid = embeddb.base_type(a.atttypid)
         WHERE a.attrelid = relation AND a.attname = comparison_operator.name
           AND (y.typtype IN ('e', 'r', 'm', 'c') OR y.typcategory = 'A' OR EXISTS (
                    SELECT FROM pg_cast t
                      JOIN pg_opclass p ON p.opcintype = t.casttarget AND p.opcdefault
                      JOIN pg_am m ON m.oid = p.opcmethod AND m.amname = 'btree'
                     WHERE t.castsource = y.oid AND t.castmethod = 'b' AND t.castcontext = 'i'))))
$$;
