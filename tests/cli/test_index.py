"""``embeddb index``: what it shows and mends, with builds that are stopped midway.

A writer that does not commit holds a concurrent build in the phase in which its index is there and invalid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typer.testing import CliRunner, Result

from embeddb import HNSW, Vector, embedding_column, register
from embeddb.cli.main import build
from embeddb.encoders import Hashing
from embeddb.orm.reflection import find_spec
from embeddb.worker import index_builds

INDEX = "ix_notes_embedding_hnsw"
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
DEFINITION = f"SELECT indexdef FROM pg_indexes WHERE indexname = '{INDEX}'"
KILL = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_progress_create_index"
CREATE = 'CREATE INDEX CONCURRENTLY "100%%_l2" ON notes USING hnsw (embedding vector_l2_ops)'


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(16), index=HNSW(m=8, cast="halfvec"))


@pytest.fixture
def database(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    register(engine, Base, install=True)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO notes (body, embedding) SELECT i::text, array_fill(i, ARRAY[16])::vector"
            " FROM generate_series(1, 100) AS i"
        )
    return engine


def index_command(engine: Engine, *arguments: str, status: int = 0) -> str:
    result: Result = CliRunner().invoke(build(), ["index", *arguments, "-u", address(engine)], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return " ".join(result.output.split())


def address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def names(engine: Engine, statement: str = INVALID) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text(statement)))


@contextmanager
def writing(engine: Engine) -> Iterator[None]:
    """A writer that has not committed yet."""
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO notes (body) VALUES ('fresh')")
        yield


def wait_for_build(engine: Engine, *, over: bool = False) -> None:
    """Until a build waits for a writer, or none does any more."""
    end = time.monotonic() + 60
    while bool(names(engine, "SELECT phase FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'")) is over:
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def building(engine: Engine, statement: str) -> Iterator[None]:
    """A build that waits for a writer, and is killed at the end."""

    def run() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                connection.exec_driver_sql(statement)
            except DBAPIError as error:
                said.append(error)

    said: list[DBAPIError] = []
    thread = threading.Thread(target=run)
    with writing(engine):
        thread.start()
        wait_for_build(engine)
        yield
        names(engine, KILL)
        thread.join()
    assert said


def test_a_missing_index_is_shown_and_built(database: Engine) -> None:
    assert "m=8, ef_construction=64" in index_command(database, "list")
    with database.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    assert "missing" in index_command(database, "list", "notes.embedding", status=1)
    made = index_command(database, "build", "notes.embedding", "--memory", "64MB", "--workers", "0")
    assert f"The index {INDEX} is built." in made
    listed = index_command(database, "list")
    assert "halfvec_cosine_ops" in listed
    assert "valid" in listed
    assert "there already" in index_command(database, "build", "notes.embedding")
    with database.begin() as connection:  # the column of a change of encoder is none of its business
        spec = find_spec(connection, "notes.embedding")
        connection.execute(
            text("SELECT embeddb.expand(cast(:spec AS jsonb))"), {"spec": replace(spec, dim=8).to_json()}
        )
    assert "__next" not in index_command(database, "list")
    [definition] = names(database, DEFINITION)
    assert "::halfvec(16)) halfvec_cosine_ops) WITH (m='8'" in definition


def test_repair_drops_leftovers_and_builds_the_rest_anew(database: Engine) -> None:
    with building(database, f"REINDEX INDEX CONCURRENTLY {INDEX}"):
        pass
    with building(database, CREATE):
        assert "waiting for writers before build 0%" in index_command(database, "list", status=1)
        # Somebody else's build is not taken for a leftover.
        assert "left alone" in index_command(database, "repair", status=1)
    assert names(database) == ['"100%_l2"', f"{INDEX}_ccnew"]
    assert "leftover" in index_command(database, "list", status=1)
    said = index_command(database, "repair")
    assert f"{INDEX}_ccnew: a leftover; dropped" in said
    assert '"100%_l2": was invalid; built again' in said
    assert names(database) == []
    assert "nothing to mend" in index_command(database, "repair")
    with database.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    assert f"{INDEX}: was missing; built" in index_command(database, "repair", "notes.embedding")
    index_command(database, "list")


def test_build_puts_a_valid_index_in_the_place_of_an_invalid_one(database: Engine) -> None:
    [definition] = names(database, DEFINITION)
    with database.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    with building(database, definition.replace("INDEX", "INDEX CONCURRENTLY", 1)):
        pass
    assert names(database) == [INDEX]
    index_command(database, "build", "notes.embedding")
    assert names(database) == []
    assert names(database, DEFINITION) == [definition]


def test_an_interrupted_build_leaves_nothing(database: Engine) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    command = [sys.executable, "-m", "embeddb", "index", "build", "notes.embedding"]
    with writing(database):
        process = subprocess.Popen(
            command,
            env={**os.environ, "EMBEDDB_URL": address(database)},
            stderr=subprocess.PIPE,
            text=True,
            # What runs in the background may ignore interrupts, and hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_for_build(database)
        process.send_signal(signal.SIGINT)
        wait_for_build(database, over=True)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "Interrupted." in said) == (130, True), said
    assert names(database, DEFINITION) == []


def test_a_build_that_cannot_clean_up_says_so(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_builds, "_PATIENCE", "50ms")
    with database.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    said: list[str] = []

    def run() -> None:
        with pytest.raises(DBAPIError):
            index_builds.build(database, "notes.embedding", notice=said.append)

    thread = threading.Thread(target=run)
    with writing(database):
        thread.start()
        wait_for_build(database)
        names(database, KILL)
        thread.join()
    assert [f"{INDEX} is left, invalid" in line for line in said] == [True]
    index_command(database, "repair")
    index_command(database, "list")
