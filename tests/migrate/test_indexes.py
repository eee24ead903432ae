"""Indexes of tables that are in use: built concurrently, cut off, and built again; and what is told meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import URL, Connection, Engine, Integer, Text, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import HNSW, Hashing, Vector, embedding_column
from embeddb.migrate import index_operations
from tests.migrate.project import Project, differences

INDEX = "ix_notes_embedding_hnsw"
VALID = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{INDEX}')"
KILL = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_progress_create_index"
KEPT: list[type] = []


def notes(*, embedded: bool = True, partitioned: bool = False, m: int = 16) -> type[DeclarativeBase]:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        __table_args__ = {"postgresql_partition_by": "HASH (id)"} if partitioned else {}
        id: Mapped[int] = mapped_column(Integer, primary_key=True)
        body: Mapped[str] = mapped_column(Text)
        if embedded:
            embedding: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(16), index=HNSW(m=m))

    KEPT.append(Note)
    return Base


def adopting(engine: Engine, folder: Path, *, partitioned: bool = False) -> Project:
    """An application with a table in use, whose next revision builds an index."""
    project = Project(folder, engine, notes(embedded=False, partitioned=partitioned).metadata)
    project.revise("before")
    project.upgrade()
    project.metadata = notes(partitioned=partitioned).metadata
    return project


def answer(engine: Engine, statement: str) -> list[object]:
    with engine.connect() as connection:
        return list(connection.scalars(text(statement)))


def test_a_build_that_was_killed_is_begun_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_operations, "_INTERVAL", 0.05)
    project = adopting(engine, tmp_path)
    assert "concurrently=True" in project.revise("adopt")
    raised: list[SQLAlchemyError] = []

    def upgrade() -> None:
        try:
            project.upgrade()
        except SQLAlchemyError as error:
            raised.append(error)

    thread = threading.Thread(target=upgrade)
    with (
        caplog.at_level(logging.INFO, "alembic.embeddb"),
        # A build waits for transactions that may still look for what is not in the index.
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader,
    ):
        reader.exec_driver_sql("SELECT 1")
        thread.start()
        end = time.monotonic() + 60
        while f"{INDEX}: waiting for old snapshots" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.02)
        answer(engine, KILL)
        thread.join()
    assert len(raised) == 1
    assert answer(engine, VALID) == [False]
    project.upgrade()
    assert answer(engine, VALID) == [True]
    project.check()


def test_a_revision_that_was_cut_off_runs_again(engine18: Engine, tmp_path: Path) -> None:
    """As after a crash between the commit of an index and that of the revision's number."""
    project = adopting(engine18, tmp_path)
    project.revise("adopt")
    project.upgrade()
    [first, second] = [script.revision for script in project.scripts()]
    command.stamp(project.config, first)
    project.upgrade()
    project.check()
    with engine18.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    project.downgrade()
    assert answer(engine18, "SELECT count(*) FROM pg_attribute WHERE attname = 'embedding'") == [0]
    project.upgrade(second)
    project.check()


def test_an_index_serves_until_another_takes_its_place(engine18: Engine, tmp_path: Path) -> None:
    indexes = (
        "SELECT c.relname || coalesce(':' || array_to_string(c.reloptions, ','), '') || CASE WHEN x.indisvalid THEN ''"
        " ELSE ' invalid' END FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
        " WHERE x.indrelid = 'notes'::regclass AND NOT x.indisprimary ORDER BY 1"
    )
    old, new = (f"{INDEX}:m={m},ef_construction=64" for m in (16, 32))
    project = adopting(engine18, tmp_path)
    project.revise("adopt")
    project.upgrade()
    assert answer(engine18, indexes) == [old]
    project.metadata = notes(m=32).metadata
    written = project.revise("denser")
    assert 'existing={"options": {"m": 16, "ef_construction": 64}},' in written
    assert "drop_vector_index" not in written
    with engine18.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        reader.exec_driver_sql("SELECT 1")
        thread = threading.Thread(target=cut_off, args=(project,))
        thread.start()
        end = time.monotonic() + 60
        while not answer(engine18, "SELECT 1 FROM pg_stat_progress_create_index WHERE phase ~ 'old snapshots'"):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert answer(engine18, indexes) == [old, f"{INDEX}__new:m=32,ef_construction=64 invalid"]
        answer(engine18, KILL)
        thread.join()
    assert old in answer(engine18, indexes)
    project.upgrade()
    assert answer(engine18, indexes) == [new]
    project.check()
    project.downgrade("-1")
    assert answer(engine18, indexes) == [old]
    [*_, last] = project.scripts()
    with engine18.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As after a crash between the drop and the new name.
        made = f"CREATE INDEX {INDEX}__new ON notes USING hnsw (embedding vector_cosine_ops) WITH (m = 32)"
        connection.exec_driver_sql(made.replace("m = 32", "m = 32, ef_construction = 64"))
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
    project.upgrade(last.revision)
    assert answer(engine18, indexes) == [new]


def cut_off(project: Project) -> None:
    with pytest.raises(SQLAlchemyError):
        project.upgrade()


def test_a_partitioned_table_has_its_index_built_in_the_transaction(engine: Engine, tmp_path: Path) -> None:
    project = adopting(engine, tmp_path, partitioned=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes_0 PARTITION OF notes FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    project.config.attributes["include_object"] = lambda item, name, kind, reflected, other: name != "notes_0"
    assert "concurrently" not in project.revise("adopt")
    project.upgrade()
    project.check()
    assert answer(
        engine, "SELECT count(*) FROM pg_index WHERE indexrelid::regclass::text ~ '^(ix_)?notes.*embedding'"
    ) == [2]
    project.downgrade()
    project.upgrade()
    project.check()


def test_in_a_transaction_of_the_callers_own_the_index_is_built_inside(engine18: Engine, tmp_path: Path) -> None:
    """As test suites do that roll back what they have migrated."""
    project = adopting(engine18, tmp_path)
    project.revise("adopt")
    with engine18.connect() as connection, connection.begin() as transaction:
        project.config.attributes["connection"] = connection
        project.upgrade()
        assert connection.scalar(text(VALID)) is True
        transaction.rollback()
    del project.config.attributes["connection"]
    assert answer(engine18, VALID) == []
    assert differences(engine18, notes(embedded=False).metadata) == []


async def test_other_drivers_do_as_well(url18: URL, engine18: Engine, tmp_path: Path) -> None:
    """As by Alembic's asynchronous template."""
    project = adopting(engine18, tmp_path)

    def migrate(connection: Connection) -> None:
        project.config.attributes["connection"] = connection
        assert "concurrently=True" in project.revise("adopt")
        project.upgrade()
        project.check()
        project.downgrade()

    engine = create_async_engine(url18.set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()
    assert differences(engine18, notes(embedded=False).metadata) == []
