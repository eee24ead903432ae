"""``CREATE EXTENSION embeddb``: its files make what ``install`` makes, are upgraded, dumped and dropped as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine, text
from typer.testing import CliRunner

import embeddb
from embeddb.catalog.extension import build as build_extension
from embeddb.catalog.extension import find_server, write
from embeddb.catalog.install import install, status, uninstall
from embeddb.catalog.steps import record, steps
from embeddb.cli.main import build
from embeddb.errors import CatalogError
from embeddb.local import LocalPostgres
from tests.catalog.application import ARTICLES, connect, queued, register
from tests.catalog.test_install import address, dump, psql
from tests.conftest import fresh_database

NOW = str(len(steps()))


@pytest.fixture
def folder(tmp_path: Path, server18: LocalPostgres) -> Path:
    """The extension's files, where the server can read them."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == Path.home().stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    write(tmp_path / "extension", build_extension())
    return tmp_path


@pytest.fixture
def engine(server18: LocalPostgres, folder: Path) -> Iterator[Engine]:
    """A database that finds the files; Postgres 18 can be told where they are."""
    with fresh_database(server18) as url:
        tell(url, folder)
        engine = create_engine(url)
        yield engine
        engine.dispose()


def tell(url: URL, folder: Path) -> None:
    with psycopg.connect(address(url), autocommit=True) as connection:
        path = f"$system:{folder}"
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET extension_control_path = {}").format(sql.Identifier(str(url.database)), path)
        )


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def objects(engine: Engine) -> set[tuple[str, str]]:
    """Everything in the schema, described with its text."""
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '')"
                "  FROM pg_proc p WHERE pronamespace = 'embeddb'::regnamespace UNION ALL "
                "SELECT c.oid::regclass::text, coalesce(pg_get_viewdef(c.oid), '') || coalesce(c.relacl::text, '') ||"
                "       (SELECT string_agg(a.attname || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)"
                "          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)"
                "  FROM pg_class c WHERE relnamespace = 'embeddb'::regnamespace AND relkind IN ('r', 'v') AND c.oid <>"
                "       'embeddb.gate'::regclass"
            )
        ).all()
    return {(row[0], row[1].replace('"public"', "public")) for row in found}


def members(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(
            connection.scalars(
                text(
                    "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend WHERE deptype = 'e' AND refobjid ="
                    " (SELECT oid FROM pg_extension WHERE extname = 'embeddb') AND classid <> 'pg_type'::regclass"
                )
            )
        )


def test_it_is_what_install_makes_and_needs_pgvector(engine: Engine) -> None:
    with engine.begin() as connection:
        install(connection)
    installed = objects(engine)
    with engine.begin() as connection:
        uninstall(connection)
    run(engine, "DROP EXTENSION vector", "CREATE EXTENSION embeddb CASCADE")
    assert objects(engine) == installed
    with engine.begin() as connection:
        found = status(connection)
        assert (found.extension, found.outdated) == (True, False)
        assert install(connection) == found
    with pytest.raises(Exception, match="cannot drop extension vector because other objects depend on it"):
        run(engine, "DROP EXTENSION vector")


def test_pgvector_may_be_in_any_schema(engine: Engine) -> None:
    run(engine, "DROP EXTENSION vector", "CREATE SCHEMA ours", "CREATE EXTENSION vector SCHEMA ours")
    run(engine, "CREATE EXTENSION embeddb")
    with engine.connect() as connection:
        described = connection.scalar(text("SELECT pg_get_functiondef('embeddb.embed(text,text,text)'::regprocedure)"))
    assert "@extschema" not in described


def test_embeddings_work_and_belong_to_nobody(engine: Engine) -> None:
    run(engine, "CREATE EXTENSION embeddb")
    before = members(engine)
    with connect(engine) as connection:
        connection.execute(ARTICLES)
        register(connection)
        connection.execute("INSERT INTO articles (title) VALUES ('one'), ('two')")
        assert len(queued(connection)) == 2
    assert members(engine) == before
    totals = embeddb.drain(engine)
    assert (totals.embedded, totals.failed) == (2, 0)


def test_dump_and_restore(engine: Engine, server18: LocalPostgres, folder: Path) -> None:
    run(engine, "CREATE EXTENSION embeddb")
    with connect(engine) as connection:
        connection.execute(ARTICLES)
        register(connection)
        connection.execute("INSERT INTO articles (title) VALUES ('one')")
    embeddb.drain(engine)
    run(engine, "INSERT INTO articles (title) VALUES ('two')")
    written = dump(server18, engine.url)
    assert "CREATE EXTENSION IF NOT EXISTS embeddb" in written
    assert "CREATE TABLE embeddb." not in written
    with fresh_database(server18) as url:
        tell(url, folder)
        psql(server18, url, written)
        copy = create_engine(url)
        with connect(copy) as connection:
            assert len(queued(connection)) == 1
            connection.execute("INSERT INTO articles (title) VALUES ('three')")
            assert len(queued(connection)) == 2
        assert embeddb.drain(copy).embedded == 2
        with copy.connect() as connection:
            assert connection.scalar(text("SELECT count(embedding) FROM articles")) == 3
            assert connection.scalar(text("SELECT count(*) FROM embeddb.generation")) == 1
        copy.dispose()


@pytest.mark.parametrize("start", [1, len(steps()) - 1])
def test_upgraded_is_fresh(engine: Engine, folder: Path, start: int) -> None:
    """From a version that ended at an earlier step. Its functions were others: here it has none."""
    run(engine, "CREATE EXTENSION embeddb")
    fresh, belonging = objects(engine), members(engine)
    run(engine, "DROP EXTENSION embeddb CASCADE")
    earlier = [*steps()[0].text.replace("CREATE SCHEMA IF NOT EXISTS embeddb;", "").split("@never@")]
    earlier += [step.text.replace("@extschema:vector@", "public") for step in steps()[1:start]]
    records = [f"{record(step)};" for step in steps()[:start]]
    (folder / "extension" / f"embeddb--{start}.sql").write_text("\n".join([*earlier, *records]))
    run(engine, f"CREATE EXTENSION embeddb VERSION '{start}'")
    with engine.begin() as connection:
        assert status(connection).outdated
        assert not install(connection).outdated, "install updates the extension"
    assert objects(engine) == fresh
    assert members(engine) == belonging


def test_an_update_makes_triggers_and_functions_of_tables_anew(engine: Engine, folder: Path) -> None:
    run(engine, "CREATE EXTENSION embeddb")
    with connect(engine) as connection:
        connection.execute(ARTICLES)
        register(connection)
    before, belonging = objects(engine), members(engine)
    run(engine, "UPDATE embeddb.embedding SET built = 'by an older version'", "DROP FUNCTION articles_similar")
    without_steps = build_extension()[f"embeddb--unpackaged--{NOW}.sql"]
    (folder / "extension" / f"embeddb--{NOW}--next.sql").write_text(without_steps)
    run(engine, "ALTER EXTENSION embeddb UPDATE TO 'next'")
    assert objects(engine) == before
    assert members(engine) == belonging
    with connect(engine) as connection:
        connection.execute("SELECT 'articles_similar(bigint, integer)'::regprocedure")
        connection.execute("INSERT INTO articles (title) VALUES ('one')")
        assert len(queued(connection)) == 1


def test_a_server_with_older_files_is_told(engine: Engine, folder: Path) -> None:
    run(engine, "CREATE EXTENSION embeddb", f"DELETE FROM embeddb.step WHERE number = {len(steps())}")
    with pytest.raises(CatalogError, match="server's files of it are older"), engine.begin() as connection:
        install(connection)


def test_functions_of_another_package_are_renewed(engine: Engine) -> None:
    run(engine, "CREATE EXTENSION embeddb")
    fresh, belonging = objects(engine), members(engine)
    run(engine, "CREATE OR REPLACE FUNCTION embeddb.find(name text) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    assert objects(engine) != fresh
    with engine.begin() as connection:
        install(connection)
    assert objects(engine) == fresh
    assert members(engine) == belonging


def test_a_catalog_that_is_there_is_taken_in(engine: Engine) -> None:
    with connect(engine) as connection:
        connection.execute(ARTICLES)
    with engine.begin() as connection:
        install(connection)
    with connect(engine) as connection:
        register(connection)
        connection.execute("INSERT INTO articles (title) VALUES ('one')")
    run(engine, "CREATE EXTENSION embeddb VERSION 'unpackaged'", "ALTER EXTENSION embeddb UPDATE")
    adopted = members(engine)
    with connect(engine) as connection:
        assert len(queued(connection)) == 1
    run(engine, "DROP EXTENSION embeddb CASCADE", "CREATE EXTENSION embeddb")
    assert adopted == members(engine)


def test_dropping_it_leaves_tables_and_vectors(engine: Engine) -> None:
    run(engine, "CREATE EXTENSION embeddb")
    with connect(engine) as connection:
        connection.execute(ARTICLES)
        register(connection)
        connection.execute("INSERT INTO articles (title) VALUES ('one')")
    embeddb.drain(engine)
    with engine.begin() as connection:
        uninstall(connection)
    run(engine, "INSERT INTO articles (title) VALUES ('two')")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(embedding) FROM articles")) == 1
        assert connection.scalar(text("SELECT to_regnamespace('embeddb')")) is None


def test_files_for_older_servers_name_the_schema_of_pgvector() -> None:
    files = build_extension(15, "Odd Names")
    assert not any("@extschema" in content for content in files.values())
    assert '"Odd Names".' in files[f"embeddb--{NOW}.sql"]
    assert "no_relocate" not in files["embeddb.control"]


def test_command(tmp_path: Path, server18: LocalPostgres) -> None:
    def command(*arguments: str) -> Any:
        return CliRunner().invoke(build(), ["schema", "extension", *arguments])

    ran = command("--output", str(tmp_path / "files"), "--postgres", "17")
    assert ran.exit_code == 0, ran.output
    written = {path.name: path.read_text() for path in (tmp_path / "files").iterdir()}
    assert written == build_extension(17)
    assert command().exit_code == 2
    major, place = find_server(str(server18.programs / "pg_config"))
    assert (major, place.name, (place / "vector.control").exists()) == (18, "extension", True)
    with pytest.raises(CatalogError, match="does not run"):
        find_server(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="cannot be written"):
        write(tmp_path / "file" / "below", build_extension())
