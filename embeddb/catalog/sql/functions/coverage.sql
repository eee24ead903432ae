-- Counting, for the view embeddb.coverage.

-- Rows of the table, and rows with a vector. Exact by a scan of the table; or estimated from the planner's statistics,
-- which is what `exact` NULL chooses above a million rows. NULL where the catalog's owner may not read the table.
-- SECURITY DEFINER: a reader learns how many rows there are, and nothing that is in them.
CREATE OR REPLACE FUNCTION embeddb.count_rows(
    embedding integer, exact boolean DEFAULT NULL, OUT rows bigint, OUT embedded bigint, OUT estimated boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target regclass := (SELECT e.relation FROM embeddb.embedding e WHERE e.id = count_rows.embedding);
    vector name := (embeddb.columns(embedding)).vector;
    guess float8;
BEGIN
    IF NOT has_column_privilege(target, vector::text, 'SELECT') THEN
        RETURN;
    END IF;
    SELECT sum(greatest(c.reltuples, 0)) INTO guess
      FROM embeddb.tables_of(target) AS m (member) JOIN pg_class c ON c.oid = m.member AND c.relkind = 'r';
    estimated := NOT coalesce(exact, guess < 1000000);
    IF estimated THEN
        rows := guess;
        embedded := guess * (SELECT 1 - s.stanullfrac
                               FROM pg_statistic s JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
                              WHERE s.starelid = target AND a.attname = vector ORDER BY s.stainherit DESC LIMIT 1);
    ELSE
        EXECUTE format('SELECT count(*), count(%I) FROM %s', vector, target) INTO rows, embedded;
    END IF;
END $$;

-- Rows that wait, each once, and since when the oldest waits.
CREATE OR REPLACE FUNCTION embeddb.count_pending(embedding integer, OUT pending bigint, OUT oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(DISTINCT k.key), min(j.enqueued_at)
      FROM embeddb.job j CROSS JOIN LATERAL jsonb_array_elements(j.keys) AS k (key)
     WHERE j.embedding = count_pending.embedding
$$;

-- The vector indexes of an embedding's column.
CREATE OR REPLACE FUNCTION embeddb.vector_indexes(embedding integer)
RETURNS TABLE (index regclass) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT d.objid::regclass
      FROM embeddb.embedding e
      JOIN pg_attribute a ON a.attrelid = e.relation AND a.attname = (embeddb.columns(e.id)).vector
      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = e.relation AND d.refobjsubid = a.attnum
                      AND d.classid = 'pg_class'::regclass
      JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('i', 'I')
      JOIN pg_am m ON m.oid = c.relam AND m.amname IN ('hnsw', 'ivfflat')
     WHERE e.id = vector_indexes.embedding
$$;

-- Are they valid? NULL where there is none.
CREATE OR REPLACE FUNCTION embeddb.index_valid(embedding integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT bool_and(i.indisvalid)
      FROM embeddb.vector_indexes(embedding) AS v JOIN pg_index i ON i.indexrelid = v.index
$$;

-- Does one of them still have the comment by which searches know what recall was measured? One that was built anew has not.
CREATE OR REPLACE FUNCTION embeddb.recall_stands(embedding integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM embeddb.vector_indexes(embedding) AS v
                     JOIN embeddb.recall r ON r.comment = obj_description(v.index, 'pg_class')
                    WHERE r.embedding = recall_stands.embedding)
$$;
