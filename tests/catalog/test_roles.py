"""Least privilege: what an application, a worker and a reader may do, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine

from embeddb.catalog.install import install
from embeddb.catalog.register import register_spec
from embeddb.queue import Done, claim, leave, prepare, read, register_worker, settle, targets
from tests.catalog.application import ARTICLES, Database, connect, queued, register, spec

ROLES = ("app_writer", "app_worker", "app_reader")


@pytest.fixture
def roles(articles: Database) -> Iterator[Database]:
    """Roles with nothing but what our functions and the application's own GRANT give."""
    for role in ROLES:
        articles.execute(f"CREATE ROLE {role}")
    articles.execute("GRANT INSERT ON articles TO app_writer")
    articles.execute("SELECT embeddb.grant_worker('app_worker')")
    articles.execute("SELECT embeddb.grant_reader('app_reader')")
    yield articles
    articles.execute("RESET ROLE")
    for role in ROLES:
        articles.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@contextmanager
def acting(db: Database, role: str) -> Iterator[Database]:
    db.execute(f"SET ROLE {role}")
    try:
        yield db
    finally:
        db.execute("RESET ROLE")


def refused(db: Database, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        db.execute(statement)


def test_an_application_that_can_only_insert_gets_its_rows_queued(roles: Database) -> None:
    with acting(roles, "app_writer") as db:
        db.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
        refused(db, "SELECT * FROM articles")
        refused(db, "SELECT * FROM embeddb.job")
        refused(db, "SELECT embeddb.enqueue(1, ARRAY[1])")
    roles.execute("ALTER TABLE articles RENAME title TO headline")
    with acting(roles, "app_writer") as db:
        db.execute("INSERT INTO articles (id, headline) VALUES (2, 'a')")
    assert queued(roles) == [1, 2]


def test_a_path_of_the_writers_own_leads_no_function_astray(roles: Database) -> None:
    """Functions and operators that the writer puts first in its path are not called with the owner's rights."""
    roles.execute("GRANT CREATE ON SCHEMA public TO app_writer")
    with acting(roles, "app_writer") as db:
        db.execute(
            "CREATE FUNCTION public.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT ''\"stolen\"''::jsonb'"
        )
        db.execute("CREATE FUNCTION public.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT 1/0'")
        db.execute("SET search_path = public, pg_catalog")
        db.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
        db.execute("DROP FUNCTION public.to_jsonb, public.octet_length")
    roles.execute("REVOKE CREATE ON SCHEMA public FROM app_writer")
    assert queued(roles) == [1]


def test_a_trigger_function_cannot_be_put_on_another_table(roles: Database) -> None:
    [(function,)] = roles.execute("SELECT oid::regproc::text FROM pg_proc WHERE proname ~ '^on_change_[0-9]+$'")
    roles.execute("GRANT CREATE ON SCHEMA public TO app_writer; GRANT USAGE ON SCHEMA embeddb TO app_writer")
    with acting(roles, "app_writer") as db:
        db.execute("CREATE TABLE mine (id int)")
        refused(db, f"CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {function}()")
        db.execute("DROP TABLE mine")


def test_a_worker_can_do_its_work_and_nothing_else(roles: Database) -> None:
    roles.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, 'b')")
    with acting(roles, "app_worker") as db:
        prepare(db)
        worker = register_worker(db)
        [target] = targets(db)
        jobs = claim(db, target, worker, rows=10, lease=timedelta(minutes=1))
        rows = read(db, target, [key for job in jobs for key in job.keys])
        outcomes = {row.key: Done(row.hash, np.ones(3, np.float32)) for row in rows}
        assert settle(db, target, worker, jobs, outcomes).written == 2
        leave(db, worker)
        assert db.execute("SELECT embeddb.backfill('articles.embedding')").fetchall() == [(0,)]
        db.execute("SELECT * FROM embeddb.coverage, embeddb.workers, embeddb.failures")
        refused(db, "SELECT year FROM articles")
        refused(db, "UPDATE articles SET title = 'x'")
        refused(db, "DELETE FROM articles")
        refused(db, "CREATE TABLE embeddb.mine (id int)")
        refused(db, "UPDATE embeddb.embedding SET spec = '{}'")
        refused(db, "SELECT embeddb.unregister(1)")
        refused(db, "SELECT embeddb.refresh(1)")
    assert roles.execute("SELECT count(embedding) FROM articles").fetchall() == [(2,)]


def test_a_reader_sees_numbers_and_no_content(roles: Database) -> None:
    roles.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
    roles.execute("INSERT INTO embeddb.failure SELECT id, '1', 'encode', 'cannot read: a', 3 FROM embeddb.embedding")
    failures = "SELECT embedding, key, step, error, attempts FROM embeddb.failures"
    with acting(roles, "app_reader") as db:
        counts = db.execute("SELECT embedding, rows, pending, failed FROM embeddb.coverage").fetchall()
        assert counts == [("articles.embedding", 1, 1, 1)]
        assert db.execute(failures).fetchall() == [("articles.embedding", None, "encode", None, 3)]
        assert db.execute("SELECT name, sources FROM embeddb.embeddings").fetchall() == [
            ("articles.embedding", ["title", "body"])
        ]
        refused(db, "SELECT * FROM embeddb.job")
        refused(db, "SELECT * FROM embeddb.failure")
        refused(db, "SELECT * FROM articles")
    roles.execute("GRANT SELECT (id, title, body) ON articles TO app_reader")
    with acting(roles, "app_reader") as db:
        assert db.execute(failures).fetchall() == [("articles.embedding", 1, "encode", "cannot read: a", 3)]
    roles.execute("ALTER TABLE articles ENABLE ROW LEVEL SECURITY")
    with acting(roles, "app_reader") as db:
        assert db.execute(failures).fetchall() == [("articles.embedding", None, "encode", None, 3)]


def test_no_superuser_is_needed(engine: Engine) -> None:
    """As on a managed Postgres: pgvector is there, and a plain role owns tables and catalog."""
    with connect(engine) as db:
        name = f"owner_{engine.url.database}"
        db.execute(f"CREATE ROLE {name}; GRANT CREATE ON DATABASE {engine.url.database} TO {name}")
        db.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL ROLE {name}")
                connection.exec_driver_sql(ARTICLES)
                install(connection)
                register_spec(connection, spec())
            db.execute("INSERT INTO articles (title) VALUES ('a')")
            assert queued(db) == [1]
            # Where the catalog's owner may not read the table, its rows are not counted, and nothing fails.
            db.execute("ALTER TABLE articles OWNER TO CURRENT_USER")
            counts = db.execute("SELECT rows, embedded, pending FROM embeddb.coverage").fetchall()
            assert counts == [(None, None, 1)]
            db.execute("UPDATE articles SET title = 'b'")
            assert queued(db) == [1, 1]
        finally:
            db.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_keys_type_runs_nothing_as_the_catalogs_owner(roles: Database) -> None:
    """A table's owner may give a type of his a cast to json."""
    roles.execute("GRANT CREATE ON SCHEMA public TO app_writer; SET test.ran_as = ''")
    with acting(roles, "app_writer"):
        roles.execute(
            "CREATE TYPE kind AS ENUM ('a', 'b');"
            " CREATE TABLE kinds (id kind PRIMARY KEY, title text, body text, embedding vector(3))"
        )
    register(roles, spec("kinds"))
    with acting(roles, "app_writer"):
        roles.execute(
            "CREATE FUNCTION told(kind) RETURNS json LANGUAGE sql AS"
            " $$ SELECT to_json(set_config('test.ran_as', current_user, false)) $$;"
            " CREATE CAST (kind AS json) WITH FUNCTION told(kind)"
        )
        roles.execute("INSERT INTO kinds VALUES ('a', 'x', NULL, NULL)")
        roles.execute("UPDATE kinds SET title = 'y'; UPDATE kinds SET id = 'b'")
    assert set(queued(roles)) == {"a", "b"}
    roles.execute("DELETE FROM embeddb.job")
    roles.execute("SELECT embeddb.backfill('kinds.embedding')")
    assert queued(roles) == ["b"]
    with acting(roles, "app_writer"):
        roles.execute("DELETE FROM kinds; DROP TABLE kinds CASCADE; DROP TYPE kind CASCADE")
    assert roles.execute("SHOW test.ran_as").fetchall() == [("",)]
