"""The commands against a real database."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from typer.testing import CliRunner, Result

import embeddb
from embeddb import Vector, embedding_column, install, register
from embeddb.cli.main import build
from embeddb.cli.output import show_error, without_password
from embeddb.encoders import Hashing


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    kind: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(dim=64))


@pytest.fixture
def database(engine18: Engine) -> str:
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    factory = sessionmaker(engine18)
    install(factory)
    with factory.begin() as session:
        session.add_all(
            [
                Note(body="flying boats land on water", kind="a"),
                Note(body="bread rises by yeast", kind="b"),
                Note(body="boats on the [water]", kind="b"),
            ]
        )
    return engine18.url.render_as_string(hide_password=False)


def embeddb_command(*arguments: str, error: bool = False) -> Result:
    result = CliRunner().invoke(build(), list(arguments), env={"COLUMNS": "200"})
    if not error:
        assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.mark.parametrize("target", ["notes.embedding", "public.notes.embedding", f"{__name__}:Note.embedding"])
def test_search(database: str, target: str) -> None:
    if target.startswith("public."):
        result = embeddb_command("search", target, "flying boats", "-u", database, error=True)
        assert "notes.embedding" in str(result.exception)
        return
    result = embeddb_command("search", target, "flying boats", "-u", database, "--limit", "2", "--json")
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["body"] for row in rows] == ["flying boats land on water", "boats on the [water]"]
    assert rows[0]["score"] > rows[1]["score"] > 0
    assert "embedding" not in rows[0]


def test_search_shows_filters_sql_and_plan(database: str) -> None:
    result = embeddb_command("search", "notes.embedding", "boats", "-u", database, "--where", "kind=b", "--sql")
    assert "boats on the [water]" in result.output
    assert "flying" not in result.output
    assert "<=>" in result.output
    assert "Limit" in result.output
    assert (
        embeddb_command("search", "notes.embedding", "x", "-u", database, "--where", "no=1", error=True).exit_code == 2
    )


def test_search_for_a_recall(database: str) -> None:
    search = ("search", "notes.embedding", "boats", "-u", database, "--sql", "--recall")
    assert "greatest(400, " in embeddb_command(*search, "0.999").output
    assert "at most 0.999, not 2.0" in str(embeddb_command(*search, "2", error=True).exception)


def test_search_that_finds_nothing_says_so(database: str) -> None:
    search = ("search", "notes.embedding", "boats", "-u", database, "--where")
    assert embeddb_command(*search, "kind=z").output == "No rows.\n"
    assert embeddb_command(*search, "kind=z", "--json").output == ""
    forgotten = embeddb_command(*search, "kind", error=True)
    assert forgotten.exit_code == 2
    assert "'kind' is not COLUMN=VALUE" in forgotten.output


def test_search_of_an_unregistered_table(url18: URL) -> None:
    engine = create_engine(url18)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE plain (id int, e vector(8))"))
        connection.execute(text("INSERT INTO plain VALUES (1, '[1,0,0,0,0,0,0,0]')"))
    engine.dispose()
    address = url18.render_as_string(hide_password=False)
    result = embeddb_command("search", "plain.e", "hello", "-u", address, "--encoder", "hashing", error=True)
    assert "512" in str(result.exception)
    result = embeddb_command("search", "plain.e", "hello", "-u", address, error=True)
    assert "no embedding 'plain.e'" in str(result.exception)


def test_doctor(database: str) -> None:
    result = embeddb_command("doctor", "-u", database, "--json")
    found = {finding["what"]: finding for finding in map(json.loads, result.output.splitlines())}
    assert found["pgvector"]["state"] == "ok"
    assert found["notes.embedding"]["details"] == "cosine searches use ix_notes_embedding_hnsw"
    assert found["Hashing(dim=64)"]["state"] == "ok"
    assert found["catalog"]["state"] == "ok"
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_notes_embedding_hnsw"))
    result = embeddb_command("doctor", "-u", database, "--models", f"{__name__}:Base", error=True)
    assert result.exit_code == 1
    assert "no valid hnsw index" in result.output
    with engine.begin() as connection:
        connection.execute(text("DROP EXTENSION vector CASCADE"))
    engine.dispose()
    result = embeddb_command("doctor", "-u", database, "--models", f"{__name__}:Base", error=True)
    assert "CREATE EXTENSION vector" in result.output


def test_doctor_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDDB_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert "sqlalchemy" in embeddb_command("doctor").output
    unreachable = "postgresql://u:secret@127.0.0.1:1/x"
    result = embeddb_command("doctor", "-u", unreachable, error=True)
    assert result.exit_code == 1
    assert "secret" not in result.output
    assert embeddb_command("search", "a.b", "c", error=True).exit_code == 2


def test_help_and_version() -> None:
    assert embeddb_command("--version").output.strip() == embeddb.__version__
    for command in ("demo", "search", "doctor"):
        assert command in embeddb_command("--help").output
        assert embeddb_command(command, "--help").output


def test_passwords_are_blotted_out() -> None:
    assert without_password("at postgresql://me:s3cret@host/db") == "at postgresql://me:***@host/db"


@pytest.mark.parametrize("url", ["s3cret", "sqlite:///notes.db"])
def test_a_url_of_another_form_is_refused_and_not_repeated(url: str) -> None:
    result = embeddb_command("schema", "status", "-u", url, error=True)
    assert result.exit_code == 2
    assert "postgresql://" in result.output
    assert url not in result.output


def test_errors_of_the_database_leave_out_our_sql(engine18: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    with engine18.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.execute(text("SELECT 'a value' FROM nowhere"))
    show_error(raised.value)
    shown = capsys.readouterr().err
    assert 'relation "nowhere" does not exist' in shown
    assert "sqlalche.me" not in shown
