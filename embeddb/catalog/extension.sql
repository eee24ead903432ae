-- Blocks of the extension's scripts, around the steps, functions and views that make the catalog anywhere.
--
-- The functions beside the users' tables, and those of their triggers, do not belong to the extension: a dump has them.

-- name: preamble
-- Nothing in a script is found by a name that someone else may have given.
SET LOCAL search_path = pg_catalog, pg_temp;

-- name: refuse_catalog
-- A catalog that was installed as a script is in the way.
DO $$ BEGIN
    IF to_regclass('embeddb.step') IS NOT NULL THEN
        RAISE EXCEPTION 'this database has embeddb''s catalog already, without the extension'
            USING ERRCODE = 'EB002', HINT = 'To make it the extension''s: CREATE EXTENSION embeddb VERSION "unpackaged", '
                                            'then ALTER EXTENSION embeddb UPDATE.';
    END IF;
END $$;

-- name: adopt
-- What makes the catalog becomes the extension's; what was made for tables stays without. {version} is the version that
-- it must be of.
DO $$
DECLARE
    object text;
BEGIN
    IF (SELECT max(s.number) FROM embeddb.step s) <> {version} THEN
        RAISE EXCEPTION 'the catalog of this database is at version %, and the extension at {version}',
            (SELECT max(s.number) FROM embeddb.step s)
            USING ERRCODE = 'EB002', HINT = 'First bring both to the same version, by embeddb schema upgrade.';
    END IF;
    FOR object IN
        SELECT format('%s %s', CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'VIEW' END, c.oid::regclass)
          FROM pg_class c WHERE c.relnamespace = 'embeddb'::regnamespace AND c.relkind IN ('r', 'S', 'v')
        UNION ALL
        SELECT format('ROUTINE %s', p.oid::regprocedure)
          FROM pg_proc p WHERE p.pronamespace = 'embeddb'::regnamespace AND embeddb.owner_of(p.oid) IS NULL
           AND NOT starts_with(p.proname, 'history_')
    LOOP
        EXECUTE 'ALTER EXTENSION embeddb ADD ' || object;
    END LOOP;
END $$;

-- name: settle
-- Nobody may call anything until it is granted; and a dump has the rows of every table, with the numbers that come next.
-- A script writes those of step and generation itself.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT d.classid, d.objid, c.relkind, c.relname
          FROM pg_depend d
          JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'embeddb'
          LEFT JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
         WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' ORDER BY d.objid
    LOOP
        IF member.classid = 'pg_proc'::regclass THEN
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.objid::regprocedure);
        ELSIF member.relkind IN ('r', 'S') AND member.relname NOT IN ('step', 'generation') THEN
            PERFORM pg_extension_config_dump(member.objid, '');
        END IF;
    END LOOP;
END $$;

-- name: refresh
-- Functions and triggers of tables, as this version makes them. A script may replace nothing but what is its extension's,
-- and all that it makes becomes so: hence the functions belong to it meanwhile.
DO $$
DECLARE
    extension oid := (SELECT x.oid FROM pg_extension x WHERE x.extname = 'embeddb');
    own oid[] := ARRAY(SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass
                          AND d.refobjid = extension AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass);
    routine regprocedure;
BEGIN
    FOR routine IN SELECT f FROM embeddb.embedding e CROSS JOIN LATERAL embeddb.functions_of(e.id) AS f LOOP
        EXECUTE format('ALTER EXTENSION embeddb ADD FUNCTION %s', routine);
    END LOOP;
    PERFORM embeddb.refresh(e.id) FROM embeddb.embedding e JOIN pg_class c ON c.oid = e.relation;
    FOR routine IN SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass
                      AND d.refobjid = extension AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
                      AND d.objid <> ALL (own) LOOP
        EXECUTE format('ALTER EXTENSION embeddb DROP FUNCTION %s', routine);
    END LOOP;
END $$;
