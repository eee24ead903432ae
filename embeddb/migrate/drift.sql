-- What a database says of itself: what stands between its embeddings and their promise.

-- name: orphans
-- Registrations whose table was dropped.
SELECT e.id, concat_ws('.', e.spec ->> 'schema', e.spec ->> 'table', e.spec ->> 'column') AS name
  FROM embeddb.embedding e
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = e.relation)
 ORDER BY e.id;

-- name: problems
-- Triggers and functions that are missing, disabled or passed by, in words.
SELECT v.name, p AS problem
  FROM embeddb.embeddings v, LATERAL embeddb.problems(v.id) AS p
 ORDER BY v.name, p;

-- name: outdated
-- Embeddings whose triggers were made for other names of columns, or by another embeddb.
SELECT v.name
  FROM embeddb.embeddings v JOIN embeddb.embedding e ON e.id = v.id
 WHERE e.built <> pg_catalog.md5(ARRAY(SELECT embeddb.trigger_ddl(v.id))::text)
 ORDER BY v.name;

-- name: rewritten
-- Functions of embeddings whose text is another than embeddb writes.
SELECT v.name, p.oid::pg_catalog.regproc::text AS function
  FROM embeddb.embeddings v
  JOIN pg_catalog.pg_proc p ON p.pronamespace = 'embeddb'::pg_catalog.regnamespace AND embeddb.owner_of(p.oid) = v.id
 WHERE NOT EXISTS (SELECT FROM embeddb.trigger_ddl(v.id) AS t (ddl)
                    WHERE pg_catalog.strpos(t.ddl, pg_catalog.quote_literal(p.prosrc)) > 0)
 UNION ALL
SELECT v.name, p.oid::pg_catalog.regproc::text
  FROM embeddb.embeddings v
 CROSS JOIN LATERAL embeddb.wanted_functions(v.id) AS w
  JOIN pg_catalog.pg_proc p ON p.proname = w.name AND pg_catalog.starts_with(p.prosrc, w.mark)
                           AND p.pronamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(w.schema))
 WHERE pg_catalog.strpos(w.ddl, pg_catalog.quote_literal(p.prosrc)) = 0
 ORDER BY 1, 2;

-- name: unindexed
-- Embeddings that declare an index, and have none by that method. The column of a change of encoder gets its own late.
SELECT v.name
  FROM embeddb.embeddings v
 WHERE v.spec -> 'index' ->> 'method' IS NOT NULL
   AND NOT EXISTS (SELECT FROM embeddb.reembedding r WHERE r.shadow = v.id)
   AND NOT EXISTS (SELECT FROM embeddb.vector_indexes(v.id) AS x (index)
                     JOIN pg_catalog.pg_class c ON c.oid = x.index
                     JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = v.spec -> 'index' ->> 'method')
 ORDER BY v.name;
