-- pgvector, which only a superuser may create, and embeddb's catalog, which belongs to the application as its tables do.
CREATE EXTENSION vector;
SET ROLE app;
CREATE EXTENSION embeddb;
SELECT embeddb.grant_worker('worker');
