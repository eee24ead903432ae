"""``embeddb schema`` and ``embeddb verify``, as one would type them."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from embeddb.cli.main import build
from embeddb.encoders import Hashing
from embeddb.errors import CatalogError, CatalogMissing
from tests.catalog.application import connect, register, spec

ENCODER = Hashing(dim=16)


@pytest.fixture
def url(engine18: Engine) -> str:
    return engine18.url.render_as_string(hide_password=False)


def run(*arguments: str, expect: int = 0) -> Result:
    result = CliRunner().invoke(build(), list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == expect, (result.output, result.exception)
    return result


def test_schema_from_nothing_to_nothing(url: str, engine18: Engine) -> None:
    assert "schema install" in run("schema", "status", "-u", url, expect=1).output
    assert isinstance(run("schema", "upgrade", "-u", url, expect=1).exception, CatalogMissing)
    assert "at version" in run("schema", "install", "-u", url).output
    run("schema", "upgrade", "-u", url)
    with connect(engine18) as db:
        db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, body text, embedding vector(3))")
        register(db)
        assert "articles.embedding" in run("schema", "status", "-u", url).output
        db.execute("ALTER TABLE articles DISABLE TRIGGER USER")
        assert "call embeddb.refresh" in run("schema", "status", "-u", url, expect=1).output
    assert run("schema", "uninstall", "-u", url, expect=1).exception is not None
    run("schema", "uninstall", "-u", url, "--yes")
    run("schema", "status", "-u", url, expect=1)


def test_schema_sql_is_the_script() -> None:
    script = run("schema", "sql", "--vector-schema", "My ext").output
    assert script.startswith("BEGIN;")
    assert '"My ext".vector' in script
    assert "CREATE TABLE embeddb.job" not in run("schema", "sql", "--since", "99").output


def test_schema_grant(url: str, engine18: Engine) -> None:
    run("schema", "install", "-u", url)
    run("schema", "grant", "-u", url, expect=2)
    name = f"role_{engine18.url.database}"
    with connect(engine18) as db:
        db.execute(f"CREATE ROLE {name}")
        run("schema", "grant", "-u", url, "--reader", name, "--worker", name)
        for table, right in (("coverage", "SELECT"), ("job", "DELETE")):
            has = db.execute("SELECT has_table_privilege(%s, %s, %s)", [name, f"embeddb.{table}", right])
            assert has.fetchall() == [(True,)]
        db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_verify(url: str, engine18: Engine) -> None:
    assert isinstance(run("verify", "-u", url, expect=1).exception, CatalogMissing)
    run("schema", "install", "-u", url)
    with connect(engine18) as db:
        db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, body text, embedding vector(16))")
        register(db, spec(dim=16, encoder=dict(ENCODER.config)))
        db.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, NULL)")
        assert "The promise holds." in run("verify", "-u", url).output
        db.execute("DELETE FROM embeddb.job")
        output = run("verify", "articles.embedding", "-u", url, expect=1).output
        assert "articles.embedding row 1: missing: no vector, no job, no failure" in output
        db.execute(f"UPDATE articles SET embedding = '{[1.0] * 16}' WHERE id = 1")
        assert "row 1: stale" in run("verify", "-u", url, "--sample", "5", expect=1).output
        run("verify", "-u", url, "--no-encode")
        assert isinstance(run("verify", "nothing.here", "-u", url, expect=1).exception, CatalogError)
