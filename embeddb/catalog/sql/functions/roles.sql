-- Who may do what. Run by the catalog's owner, who also owns the tables or may grant on them.
--
--   application   nothing here: rows it writes are queued by triggers that run as the catalog's owner
--   worker        claims, reads sources, writes vectors; no DDL, no other column of any table
--   reader        the views, the functions they call, and embeddb.embed; no table of the catalog

-- Makes `role` a worker for every embedding there is now; call it again after a registration.
CREATE OR REPLACE FUNCTION embeddb.grant_worker(role name) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e record;
BEGIN
    PERFORM embeddb.grant_reader(role);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA embeddb TO %I', role);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON embeddb.job, embeddb.failure, embeddb.worker, embeddb.query_cache,'
                   ' embeddb.digest TO %I', role);
    EXECUTE format('GRANT UPDATE (wait_until, wait_reason, fingerprint) ON embeddb.encoder TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.own_key_sql(regclass, name[], text),'
                   ' embeddb.match_sql(regclass, name[], text, text),'
                   ' embeddb.blank_sql(regclass, name[], text), embeddb.backfill(text, boolean), embeddb.sweep(integer),'
                   ' embeddb.problems(integer), embeddb.embeds_documents(integer), embeddb.embed_document(integer, text),'
                   ' embeddb.drain_target(text), embeddb.drain_claim(integer, integer, integer),'
                   ' embeddb.drain_encode(integer, jsonb[]), embeddb.sources_sql(regclass, name[], text),'
                   ' embeddb.compose(text[], text[], text), embeddb.is_blank(text), embeddb.absent_keys(integer, jsonb[]),'
                   ' embeddb.drain_write(integer, jsonb[], bigint[], @extschema:vector@.vector[], text[]),'
                   ' embeddb.drain_fail(integer, bigint[], jsonb[], bigint[], text[], text[]),'
                   ' embeddb.drain_settle(integer, integer, bigint[], jsonb[], bigint[], @extschema:vector@.vector[], text[],'
                   ' text[]) TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.verify_histories(text) TO %I', role);
    EXECUTE format('GRANT EXECUTE ON PROCEDURE embeddb.drain(integer, text, bigint, bigint) TO %I', role);
    FOR e IN SELECT v.* FROM embeddb.embeddings v LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', e.schema, role);
        -- The worker finds the rows that it has locked by their place.
        EXECUTE format('GRANT SELECT (%s, ctid, tableoid), UPDATE (%I) ON %s TO %I',
                       embeddb.name_list_sql(embeddb.distinct_names(e.keys || e.sources || e."column")),
                       e."column", e.relation, role);
    END LOOP;
END $$;

-- Lets `role` see the views.
CREATE OR REPLACE FUNCTION embeddb.grant_reader(role name) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA embeddb TO %I', role);
    EXECUTE format('GRANT SELECT ON embeddb.embeddings, embeddb.coverage, embeddb.failures, embeddb.workers,'
                   ' embeddb.histories TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.columns(integer), embeddb.name(integer), embeddb.find(text),'
                   ' embeddb.count_rows(integer, boolean), embeddb.count_pending(integer), embeddb.index_valid(integer),'
                   ' embeddb.recall_stands(integer),'
                   ' embeddb.count_users(regclass, name),'
                   ' embeddb.embed(text, text, text)'
                   ' TO %I', role);
    -- By which a session follows an encoder's change.
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.generation(), embeddb.serving(), embeddb.hold() TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.search(text, text, integer, jsonb),'
                   ' embeddb.neighbors(text, jsonb, integer, jsonb), embeddb.duplicates(text, float8, integer),'
                   ' embeddb.classify(text, text, text, integer), embeddb.classify(text, text, jsonb, integer),'
                   ' embeddb.cluster(text, integer, integer, integer, bigint)'
                   ' TO %I', role);
    -- What those compose their statements with, and compute by.
    EXECUTE format('GRANT EXECUTE ON FUNCTION embeddb.described(text), embeddb.duplicates_sql(text),'
                   ' embeddb.compose_search(integer, jsonb, text, name, name[], text, text, text),'
                   ' embeddb.compose_filtered(integer, jsonb, regclass, name, name[], text, text, text),'
                   ' embeddb.vector_of_sql(integer, text),'
                   ' embeddb.votes_sql(integer, name, text, text, text), embeddb.filter_sql(regclass, jsonb, text),'
                   ' embeddb.column_of(regclass, text), embeddb.match_sql(regclass, name[], text, text),'
                   ' embeddb.key_sql(name[], text), embeddb.effort(integer, integer, integer),'
                   ' embeddb.first_centres(@extschema:vector@.vector[], integer, bigint),'
                   ' embeddb.nearest_centres(@extschema:vector@.vector[], @extschema:vector@.vector[])'
                   ' TO %I', role);
END $$;
