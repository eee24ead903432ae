-- Histories, for the view embeddb.histories and for embeddb verify. Their own functions and triggers are made where they
-- are registered, from embeddb/orm/history.sql.

-- Users, and those with a vector. Estimated above a million users, as embeddb.count_rows does. Of registered histories
-- alone: a view of the caller's would run its functions as this one's owner.
CREATE OR REPLACE FUNCTION embeddb.count_users(
    relation regclass, vector name, OUT rows bigint, OUT embedded bigint, OUT estimated boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM embeddb.history h WHERE h.relation = count_users.relation AND h.spec ->> 'column' = vector)
       OR NOT has_column_privilege(relation, vector::text, 'SELECT') THEN
        RETURN;
    END IF;
    SELECT c.reltuples, c.reltuples * (1 - s.stanullfrac), c.reltuples >= 1000000 INTO rows, embedded, estimated
      FROM pg_class c
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = vector
      LEFT JOIN pg_statistic s ON s.starelid = c.oid AND s.staattnum = a.attnum
     WHERE c.oid = relation
     ORDER BY s.stainherit DESC LIMIT 1;
    IF NOT estimated THEN
        EXECUTE format('SELECT count(*), count(%I) FROM %s', vector, relation) INTO rows, embedded;
    END IF;
END $$;

-- Users whose vector is not that of their events, within 1e-6 of its length (or whose last events are others); and histories that nothing keeps up. None,
-- if all is well. SECURITY DEFINER: who asks learns keys, and nothing else of the tables.
CREATE OR REPLACE FUNCTION embeddb.verify_histories(wanted text DEFAULT NULL)
RETURNS TABLE (history text, key text, problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h record;
BEGIN
    FOR h IN SELECT v.*, v.spec ->> 'column' AS vector, v.spec ->> 'user_key' AS user_key,
                    EXISTS (SELECT FROM pg_proc p WHERE p.proname = v.compute
                               AND p.pronamespace = 'embeddb'::regnamespace) AS computes
               FROM embeddb.histories v WHERE wanted IS NULL OR v.history = wanted ORDER BY v.history LOOP
        IF NOT (h.kept_up AND h.computes) THEN
            RETURN QUERY SELECT h.history, NULL::text,
                'its triggers or functions are gone, or switched off: register it again'::text;
            CONTINUE WHEN NOT h.computes;
        END IF;
        RETURN QUERY EXECUTE format(
            'SELECT %1$L::text, t.%2$I::text, %3$L::text'
            '  FROM %4$s AS t CROSS JOIN LATERAL (SELECT embeddb.%5$I(t.%2$I) AS anew) AS c'
            ' WHERE (t.%6$I IS NULL) <> (c.anew IS NULL) OR '
            || CASE WHEN h.spec ->> 'pooled' IS NULL THEN 't.%6$I <> c.anew'
                    ELSE 't.%6$I OPERATOR(%7$I.<->) c.anew > 1e-6 * %7$I.vector_norm(c.anew)' END,
            h.history, h.user_key, CASE WHEN h.spec ->> 'pooled' IS NULL THEN 'it is not its last events' ELSE 'its vector is not that of its events' END,
            h.relation, h.compute, h.vector,
            embeddb.pgvector_schema());
    END LOOP;
END $$;
