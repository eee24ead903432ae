-- A transformer encoder (Devlin et al. 2019, "BERT") by set operations over pgvector.
--
-- A matrix times the vectors of several tokens is one scan of its neurons with one aggregate a token: what a scan and an
-- aggregate cost then weighs little beside the inner products. Aggregates have to be written out, so the functions
-- below exist once for every number of tokens from 1 to 24; a longer text goes in blocks of about equal size. What the
-- installer folds into the weights is not computed here: the scale of the attention, the biases of keys and values,
-- constants of the activation.

-- Repeats each {* … *} of a template, with {i} from 1 to `width`; after a semicolon by itself, else with a comma.
-- {n} is the width.
CREATE OR REPLACE FUNCTION embeddb.repeat_columns(template text, width integer) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT replace(string_agg(
               CASE WHEN p.place % 2 = 1 THEN p.part
                    ELSE (SELECT string_agg(replace(p.part, '{i}', i::text),
                                            CASE WHEN right(p.part, 1) IN (';', ' ') THEN ' ' ELSE ', ' END ORDER BY i)
                            FROM generate_series(1, width) AS i) END, '' ORDER BY p.place), '{n}', width::text)
      FROM regexp_split_to_table(template, '\{\*|\*\}') WITH ORDINALITY AS p (part, place)
$$;

-- The complementary error function of the expression x. Postgres has it from version 16; before, by Abramowitz and
-- Stegun's 7.1.26, which is within 1.5e-7.
CREATE OR REPLACE FUNCTION embeddb.erfc_sql(
    x text, native boolean DEFAULT to_regprocedure('pg_catalog.erfc(float8)') IS NOT NULL
) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN native THEN format('erfc(%s)', x) ELSE replace(replace(
        '(CASE WHEN {x} < 0 THEN 2 ELSE 0 END + CASE WHEN {x} < 0 THEN -1 ELSE 1 END * exp(-least({x} * {x}, 700)) * '
        '{t} * (0.254829592 + {t} * (-0.284496736 + {t} * (1.421413741 + {t} * (-1.453152027 + {t} * 1.061405429)))))',
        '{t}', '(1 / (1 + 0.3275911 * abs({x})))'), '{x}', x) END
$$;

DO $make$
DECLARE
    -- The neurons of a matrix, in order.
    rows text := $$(SELECT unnest(r.n) AS n FROM (
             SELECT coalesce(w.neurons, w.halves::@extschema:vector@.vector[]) AS n FROM embeddb.transformer_weight w
              WHERE w.encoder = model.encoder AND w.layer = depth AND w.part = '%s' AND w.slice = %s
              ORDER BY w.place OFFSET 0) r OFFSET 0) m$$;

    -- Queries and keys of the given tokens, one vector a token; values the other way round, one vector a dimension.
    keys text := $$
CREATE OR REPLACE FUNCTION embeddb.transformer_keys_{n}(
    model embeddb.transformer, depth integer, tokens @extschema:vector@.vector[],
    OUT queries_keys @extschema:vector@.vector[], OUT by_dimension @extschema:vector@.vector[]
)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    one CONSTANT @extschema:vector@.vector := '[1]';
    {*x{i} @extschema:vector@.vector := tokens[{i}] OPERATOR(@extschema:vector@.||) one;*}
BEGIN
    queries_keys := (SELECT ARRAY[{*array_agg(m.n OPERATOR(@extschema:vector@.<#>) x{i})::@extschema:vector@.vector*}]
                       FROM <query_key>);
    by_dimension := (SELECT array_agg(ARRAY[{*m.n OPERATOR(@extschema:vector@.<#>) x{i}*}]::@extschema:vector@.vector)
                       FROM <value>);
END $body$ $$;

    -- What the layer makes of the given tokens. `queries`: theirs, as above. `keys`, `by_dimension`: of all tokens.
    -- `after`: how many tokens there are before the first of these.
    layer text := $$
CREATE OR REPLACE FUNCTION embeddb.transformer_layer_{n}(
    model embeddb.transformer, depth integer, tokens @extschema:vector@.vector[], queries @extschema:vector@.vector[],
    keys @extschema:vector@.vector[], by_dimension @extschema:vector@.vector[], after integer,
    bias @extschema:vector@.vector[]
) RETURNS @extschema:vector@.vector[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    one CONSTANT @extschema:vector@.vector := '[1]';
    wide CONSTANT integer := model.width;
    per_head CONSTANT integer := model.width / model.heads;
    many CONSTANT integer := cardinality(keys);
    middle CONSTANT integer := (@extschema:vector@.vector_dims(bias[1]) + 1) / 2;
    {*x{i} @extschema:vector@.vector;*}
    {*a{i} @extschema:vector@.vector;*}
    result @extschema:vector@.vector[];
    part @extschema:vector@.vector[];
BEGIN
    -- Softmax of the scores, head by head, less their maximum so that exp() cannot overflow. <#> is the negative inner
    -- product, so the least is the maximum. An entry of `bias` (for relative positions) goes with a key by a further
    -- dimension for every key, 1 at its own place: the last of `bias` is that 1 in the middle of zeros.
    result := (
        SELECT ARRAY[{*array_agg((e.e{i} OPERATOR(@extschema:vector@.<#>) v.v) / e.s{i})::@extschema:vector@.vector*}]
          FROM (SELECT s.h, {*CASE WHEN bias IS NULL
                  THEN @extschema:vector@.subvector(queries[{i}], s.h * per_head + 1, per_head)
                  ELSE @extschema:vector@.subvector(queries[{i}], s.h * per_head + 1, per_head)
                       OPERATOR(@extschema:vector@.||) @extschema:vector@.subvector(bias[s.h + 1], middle - after - {i} + 1, many)
                  END AS q{i}*}
                  FROM generate_series(0, model.heads - 1) AS s (h) OFFSET 0) h
         CROSS JOIN LATERAL (
                SELECT array_agg(CASE WHEN bias IS NULL
                         THEN @extschema:vector@.subvector(k.k, wide + h.h * per_head + 1, per_head)
                         ELSE @extschema:vector@.subvector(k.k, wide + h.h * per_head + 1, per_head)
                              OPERATOR(@extschema:vector@.||)
                              @extschema:vector@.subvector(bias[model.heads + 1], middle - k.place::integer + 1, many)
                         END) AS k
                  FROM unnest(keys) WITH ORDINALITY AS k (k, place) OFFSET 0) k
         CROSS JOIN LATERAL (
                SELECT {*min(h.q{i} OPERATOR(@extschema:vector@.<#>) u.k) AS m{i}*} FROM unnest(k.k) AS u (k) OFFSET 0) m
         CROSS JOIN LATERAL (
                SELECT {*array_agg(x.e{i})::@extschema:vector@.vector AS e{i}, -sum(x.e{i}) AS s{i}*}
                  FROM (SELECT {*exp(greatest(m.m{i} - (h.q{i} OPERATOR(@extschema:vector@.<#>) u.k), -700)) AS e{i}*}
                          FROM unnest(k.k) AS u (k) OFFSET 0) x OFFSET 0) e
         CROSS JOIN LATERAL unnest(by_dimension[h.h * per_head + 1 : (h.h + 1) * per_head]) AS v (v));
    {*x{i} := result[{i}] OPERATOR(@extschema:vector@.||) one;*}
    result := (SELECT ARRAY[{*array_agg(m.n OPERATOR(@extschema:vector@.<#>) x{i})::@extschema:vector@.vector*}]
                 FROM <attended>);
    result := embeddb.transformer_norm(model, depth, 'attended_norm', tokens, result);
    {*x{i} := result[{i}] OPERATOR(@extschema:vector@.||) one;*}
    IF model.activation = 'gelu' THEN
        SELECT {*array_agg(y.y{i} * <erfc>)*} INTO {*a{i}*} FROM <activated>;
    ELSIF model.activation = 'relu' THEN
        SELECT {*array_agg(greatest(y.y{i}, 0))*} INTO {*a{i}*} FROM <activated>;
    ELSE
        SELECT {*array_agg(y.y{i} * (1 + tanh(0.7978845608028654 * (y.y{i} + 0.044715 * y.y{i} * y.y{i} * y.y{i}))))*}
          INTO {*a{i}*} FROM <activated>;
    END IF;
    FOR s IN 0 .. model.slices - 1 LOOP
        {*x{i} := @extschema:vector@.subvector(a{i}, s * model.slice_width + 1, model.slice_width)
                  OPERATOR(@extschema:vector@.||) one;*}
        part := (SELECT ARRAY[{*array_agg(m.n OPERATOR(@extschema:vector@.<#>) x{i})::@extschema:vector@.vector*}]
                   FROM <down>);
        IF s > 0 THEN
            part := ARRAY[{*tokens[{i}] OPERATOR(@extschema:vector@.+) part[{i}]*}];
        END IF;
        tokens := part;
    END LOOP;
    RETURN embeddb.transformer_norm(model, depth, 'output_norm', result, tokens);
END $body$ $$;
BEGIN
    layer := replace(layer, '<activated>', '(SELECT {*m.n OPERATOR(@extschema:vector@.<#>) x{i} AS y{i}*} FROM '
                                           || format(rows, 'up', 0) || ' OFFSET 0) y');
    layer := replace(layer, '<attended>', format(rows, 'attended', 0));
    layer := replace(layer, '<down>', format(rows, 'down', 's'));
    layer := replace(layer, '<erfc>', embeddb.erfc_sql('y.y{i}'));
    keys := replace(keys, '<query_key>', format(rows, 'query_key', 0));
    keys := replace(keys, '<value>', format(rows, 'value', 0));
    FOR width IN 1 .. 24 LOOP
        EXECUTE embeddb.repeat_columns(keys, width);
        EXECUTE embeddb.repeat_columns(layer, width);
    END LOOP;
END $make$;

-- All rows of a small matrix.
CREATE OR REPLACE FUNCTION embeddb.transformer_rows(model embeddb.transformer, depth integer, part text)
RETURNS @extschema:vector@.vector[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN ARRAY(SELECT unnest(r.n) FROM (
        SELECT coalesce(w.neurons, w.halves::@extschema:vector@.vector[]) AS n FROM embeddb.transformer_weight w
         WHERE w.encoder = model.encoder AND w.layer = depth AND w.part = transformer_rows.part AND w.slice = 0
         ORDER BY w.place OFFSET 0) r);
END $$;

-- LayerNorm (Ba, Kiros, Hinton 2016) of the sums of two vectors, token by token. epsilon enters as a further dimension
-- of the length that l2_normalize divides by; the rows that hold gain and bias have the gain multiplied by the root of
-- the width.
CREATE OR REPLACE FUNCTION embeddb.transformer_norm(
    model embeddb.transformer, depth integer, part text, first @extschema:vector@.vector[], second @extschema:vector@.vector[]
) RETURNS @extschema:vector@.vector[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wide CONSTANT integer := model.width;
    average CONSTANT @extschema:vector@.vector := array_fill((1 / model.width::float8)::real, ARRAY[model.width::integer]);
    floor CONSTANT @extschema:vector@.vector := ARRAY[sqrt(model.width * model.epsilon)::real];
    rows CONSTANT @extschema:vector@.vector[] := embeddb.transformer_rows(model, depth, part);
    gain CONSTANT @extschema:vector@.vector := rows[1];
    bias CONSTANT @extschema:vector@.vector := rows[2];
BEGIN
    -- The rows of unnest come in order, and nothing here changes it.
    RETURN ARRAY(
        SELECT @extschema:vector@.subvector(@extschema:vector@.l2_normalize(
                   (s.s OPERATOR(@extschema:vector@.-)
                    array_fill((- (s.s OPERATOR(@extschema:vector@.<#>) average))::real, ARRAY[wide])::@extschema:vector@.vector)
                   OPERATOR(@extschema:vector@.||) floor), 1, wide)
               OPERATOR(@extschema:vector@.*) gain OPERATOR(@extschema:vector@.+) bias
          FROM (SELECT u.f OPERATOR(@extschema:vector@.+) u.s AS s FROM unnest(first, second) AS u (f, s) OFFSET 0) s);
END $$;

DO $make$
DECLARE
    -- The vector of a text, given as ids of tokens. Plans are generic: Postgres would count the tokens and plan anew
    -- for every layer.
    forward text := $$
CREATE OR REPLACE FUNCTION embeddb.transformer_forward(model embeddb.transformer, ids integer[])
RETURNS @extschema:vector@.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
SET jit = off SET plan_cache_mode = force_generic_plan AS $body$
DECLARE
    many CONSTANT integer := cardinality(ids);
    blocks CONSTANT integer := (many + {n} - 1) / {n};
    bias CONSTANT @extschema:vector@.vector[] := nullif(embeddb.transformer_rows(model, -1, 'relative'), '{}');
    tokens @extschema:vector@.vector[];
    positions @extschema:vector@.vector[];
    queries_keys @extschema:vector@.vector[];
    by_dimension @extschema:vector@.vector[];
    produced @extschema:vector@.vector[];
    taken @extschema:vector@.vector[];
    keys record;
    low integer;
    high integer;
    result @extschema:vector@.vector;
BEGIN
    SELECT array_agg(coalesce(t.vector, t.half::@extschema:vector@.vector) ORDER BY u.place),
           array_agg((SELECT coalesce(w.neurons[1], (w.halves[1])::@extschema:vector@.vector)
                        FROM embeddb.transformer_weight w WHERE w.encoder = model.encoder AND w.layer = -1
                         AND w.part = 'position' AND w.slice = 0 AND w.place = u.place) ORDER BY u.place)
      INTO tokens, positions
      FROM unnest(ids) WITH ORDINALITY AS u (id, place)
      JOIN embeddb.transformer_token t ON t.encoder = model.encoder AND t.id = u.id;
    tokens := embeddb.transformer_norm(model, -1, 'norm', tokens, positions);
    FOR depth IN 0 .. model.layers - 1 LOOP
        queries_keys := '{}';
        produced := '{}';
        FOR block IN 0 .. blocks - 1 LOOP
            low := block * many / blocks;
            high := (block + 1) * many / blocks;
            taken := tokens[low + 1 : high];
            CASE high - low {*
            WHEN {i} THEN keys := embeddb.transformer_keys_{i}(model, depth, taken); *}
            END CASE;
            queries_keys := queries_keys || keys.queries_keys;
            by_dimension := CASE WHEN block = 0 THEN keys.by_dimension
                                 ELSE ARRAY(SELECT u.l OPERATOR(@extschema:vector@.||) u.r
                                              FROM unnest(by_dimension, keys.by_dimension) AS u (l, r)) END;
        END LOOP;
        FOR block IN 0 .. blocks - 1 LOOP
            low := block * many / blocks;
            high := (block + 1) * many / blocks;
            IF depth = model.layers - 1 AND model.pooling = 'cls' THEN
                -- Of the last layer only the first token is wanted.
                EXIT WHEN block > 0;
                high := 1;
            END IF;
            taken := tokens[low + 1 : high];
            CASE high - low {*
            WHEN {i} THEN taken := embeddb.transformer_layer_{i}(model, depth, taken, queries_keys[low + 1 : high],
                                                                queries_keys, by_dimension, low, bias); *}
            END CASE;
            produced := produced || taken;
        END LOOP;
        tokens := produced;
    END LOOP;
    IF model.pooling = 'cls' THEN
        result := tokens[1];
    ELSIF model.pooling = 'mean' THEN
        result := (SELECT @extschema:vector@.avg(t) FROM unnest(tokens) AS t);
    ELSE
        result := (SELECT array_agg(d.most ORDER BY d.place)
                     FROM (SELECT e.place, max(e.e) AS most
                             FROM unnest(tokens) AS t CROSS JOIN LATERAL unnest(t::real[]) WITH ORDINALITY AS e (e, place)
                            GROUP BY e.place) d);
    END IF;
    IF model.normalized THEN
        result := @extschema:vector@.l2_normalize(result);
    END IF;
    IF model.truncate_to IS NOT NULL THEN
        result := @extschema:vector@.subvector(result, 1, model.truncate_to);
    END IF;
    IF model.scaled THEN
        result := @extschema:vector@.l2_normalize(result);
    END IF;
    RETURN result;
END $body$ $$;
BEGIN
    EXECUTE embeddb.repeat_columns(forward, 24);
END $make$;
