"""Installing, upgrading and removing the catalog; dump and restore."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text

from embeddb.catalog.install import install, require, script, status, uninstall, upgrade_statements
from embeddb.catalog.steps import current, frozen, statements, steps
from embeddb.errors import CatalogError, CatalogMissing, CatalogOutdated, PgvectorMissing, PgvectorOutdated
from embeddb.local import LocalPostgres
from tests.catalog.application import ARTICLES, connect, queued, register, spec


def address(url: URL) -> str:
    """For libpq's programs."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def dump(server: LocalPostgres, url: URL, *options: str) -> str:
    """What pg_dump writes, without the token that differs from run to run."""
    command = [str(server.programs / "pg_dump"), *options, address(url)]
    ran = subprocess.run(command, capture_output=True, check=True, text=True)
    return re.sub(r"\\(un)?restrict .*", "", ran.stdout)


def psql(server: LocalPostgres, url: URL, script: str) -> str:
    """Run a script, stopping at the first error; what it wrote to stderr."""
    command = [str(server.programs / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address(url)]
    return subprocess.run(command, input=script, capture_output=True, check=True, text=True).stderr


def schema_of(server: LocalPostgres, url: URL) -> str:
    """The catalog, object by object."""
    return dump(server, url, "--schema-only", "--schema=embeddb")


@pytest.fixture
def fresh(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


def test_steps_are_numbered_without_a_gap_and_frozen() -> None:
    """A published step never changes: write a new one. Its hash is added to frozen.txt when it is made."""
    assert [step.number for step in steps()] == [*range(1, len(steps()) + 1)]
    assert {step.number: step.hash for step in steps()} == frozen()


def test_a_file_is_split_into_its_statements() -> None:
    parts = [*statements("-- a;b\nSELECT 'x;''y'; SELECT $$ a; b $$, \";\";\nSELECT $f$ $$;$$ $f$;\n")]
    assert parts == ["-- a;b\nSELECT 'x;''y'", 'SELECT $$ a; b $$, ";"', "SELECT $f$ $$;$$ $f$"]
    for file in (*(step.text for step in steps()), *current()):
        assert file.rstrip().endswith(";")
        assert "".join(re.sub(r"\s", "", part) + ";" for part in statements(file)) == re.sub(r"\s", "", file)


@pytest.mark.parametrize("start", range(1, len(steps()) + 1))
def test_upgraded_is_fresh(server: LocalPostgres, engine: Engine, start: int) -> None:
    """From every earlier step, as it was installed then, to what a fresh install gives."""
    with engine.begin() as connection:
        install(connection)
    fresh = schema_of(server, engine.url)
    with engine.begin() as connection:
        uninstall(connection)
    with engine.begin() as connection:
        for step in steps()[:start]:
            for statement in statements(step.text.replace("@extschema:vector@", "public")):
                connection.exec_driver_sql(statement)
            connection.execute(
                text("INSERT INTO embeddb.step VALUES (:number, :name, :hash)"),
                {"number": step.number, "name": step.name, "hash": step.hash},
            )
        assert install(connection).installed == len(steps())
    assert schema_of(server, engine.url) == fresh
    with engine.begin() as connection:
        install(connection)
    assert schema_of(server, engine.url) == fresh


def test_the_script_runs_in_psql_and_gives_the_same(server: LocalPostgres, engine: Engine) -> None:
    assert psql(server, engine.url, script()) == ""
    by_script = schema_of(server, engine.url)
    with engine.begin() as connection:
        assert not status(connection).outdated
        uninstall(connection)
        install(connection)
    assert schema_of(server, engine.url) == by_script


def test_what_is_missing_is_said(fresh: Connection) -> None:
    with pytest.raises(CatalogMissing, match="embeddb schema install"):
        require(fresh)
    install(fresh)
    assert require(fresh).installed == len(steps())
    fresh.execute(text("DELETE FROM embeddb.step"))
    with pytest.raises((CatalogMissing, CatalogOutdated)):
        require(fresh)
    fresh.execute(text("INSERT INTO embeddb.step VALUES (1, 'tables', 'of a draft')"))
    with pytest.raises(CatalogError, match="unpublished"):
        require(fresh)
    fresh.execute(text("UPDATE pg_catalog.pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'"))
    with pytest.raises(PgvectorOutdated):
        install(fresh)
    fresh.execute(text("DROP EXTENSION vector CASCADE"))
    with pytest.raises(PgvectorMissing):
        install(fresh)


def test_pgvector_in_any_schema(engine18: Engine) -> None:
    with engine18.begin() as connection:
        connection.execute(
            text('DROP EXTENSION vector; CREATE SCHEMA "My ""ext"; CREATE EXTENSION vector SCHEMA "My ""ext"')
        )
        install(connection)
        connection.execute(text('SET search_path = public, "My ""ext"'))
        connection.execute(text(ARTICLES))
    with connect(engine18) as db:
        register(db)
        db.execute("INSERT INTO articles (title) VALUES ('a'); UPDATE articles SET title = 'b'")
        assert queued(db) == [1, 1]


def test_two_processes_install_at_once(engine18: Engine) -> None:
    def run(_: int) -> int:
        with engine18.begin() as connection:
            return install(connection).installed

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run, range(4))) == {len(steps())}


def test_uninstall_leaves_the_application_as_it_was(server: LocalPostgres, engine: Engine) -> None:
    with connect(engine) as db:
        db.execute(ARTICLES)
        before = dump(server, engine.url, "--schema-only")
        with engine.begin() as connection:
            install(connection)
        register(db)
        db.execute("INSERT INTO articles (title) VALUES ('a')")
        with engine.begin() as connection:
            uninstall(connection)
        assert dump(server, engine.url, "--schema-only") == before
        db.execute("INSERT INTO articles (title) VALUES ('b')")


def test_every_function_pins_its_path_and_is_not_for_everyone(engine: Engine) -> None:
    with engine.begin() as connection:
        install(connection)
        connection.execute(text(ARTICLES))
    with connect(engine) as db:
        register(db)
        loose = db.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'embeddb'::regnamespace"
            # A procedure that commits may have no settings: it makes them itself.
            " AND (NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], prokind = 'p')"
            "      OR proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) a WHERE a.grantee = 0))"
        ).fetchall()
    assert loose == []


def test_dump_and_restore_bring_everything_back(server: LocalPostgres, engine: Engine) -> None:
    with engine.begin() as connection:
        install(connection)
        # Dropped columns, so that the restored table numbers its columns anew.
        connection.execute(
            text(
                "CREATE TABLE articles (gone int, id bigint PRIMARY KEY, gone2 int, title text, body text,"
                " embedding vector(3))"
            )
        )
        connection.execute(text("ALTER TABLE articles DROP gone, DROP gone2"))
    target = engine.url.set(database=f"{engine.url.database}_restored")
    with connect(engine) as db:
        register(db, spec(on_update="clear"))
        db.execute("ALTER TABLE articles RENAME title TO headline; ALTER TABLE articles RENAME id TO number")
        db.execute("INSERT INTO articles (number, headline) VALUES (1, 'a'), (2, 'b')")
        db.execute(f"CREATE DATABASE {target.database} TEMPLATE template0")
    try:
        psql(server, target, dump(server, engine.url))
        with psycopg.connect(address(target), autocommit=True) as db:
            assert queued(db) == [1, 2]
            db.execute("INSERT INTO articles (number, headline) VALUES (3, 'c'), (4, NULL)")
            db.execute("UPDATE articles SET body = 'x' WHERE number = 4")
            db.execute("DELETE FROM articles WHERE number = 1")
            assert queued(db) == [2, 3, 4]
            view = "SELECT keys, sources FROM embeddb.embeddings"
            assert db.execute(view).fetchall() == [(["number"], ["headline", "body"])]
            # The functions for searching name columns, and were written before the renames.
            problems = [problem for (problem,) in db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding")]
            functions = [f"public.articles_{verb}" for verb in ("hybrid", "search", "similar")]
            assert sorted(problem.split()[2] for problem in problems) == functions
            assert db.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding").fetchall() == [(True,)]
            assert db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall() == []
            db.execute("INSERT INTO articles (number, headline) VALUES (5, 'd')")
            assert queued(db) == [2, 3, 4, 5]
        engine_restored = create_engine(target)
        with engine_restored.begin() as connection:
            assert not require(connection).outdated
        engine_restored.dispose()
    finally:
        with connect(engine) as db:
            db.execute(f"DROP DATABASE {target.database} WITH (FORCE)")


def test_statements_since_a_version_leave_out_its_steps() -> None:
    assert not any("CREATE TABLE" in statement for statement in upgrade_statements(len(steps())))
