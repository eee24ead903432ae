"""Another encoder while searchers, writers and workers go on, and some are killed: nobody notices."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from typer.testing import CliRunner

import embeddb
from embeddb.cli.main import build
from embeddb.errors import CatalogError
from embeddb.queue import prepare, targets
from embeddb.queue.verify import verify
from embeddb.worker.reembed import Reembedding
from tests.catalog.application import connect
from tests.reembed.application import NEW, OLD, ROWS, Article, Base, search, sum_up, title, work, write


@pytest.fixture
def application(engine18: Engine) -> Engine:
    Base.metadata.create_all(engine18)
    embeddb.register(engine18, Base, install=True)
    factory = sessionmaker(engine18)
    embeddb.install(factory)
    with factory.begin() as session:
        session.add_all(Article(title=title(number)) for number in range(ROWS))
    return engine18


class Crowd:
    """Processes around a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.counts = self.context.Queue()
        self.busy = [self.start(task, url, self.stop, self.counts) for task in (search, search, write)]
        self.workers = [self.start(work, url) for _ in range(2)]

    def start(self, task: Any, *arguments: Any) -> Any:
        process = self.context.Process(target=task, args=arguments, daemon=True)
        process.start()
        return process

    def kill_a_worker(self) -> None:
        place = random.randrange(len(self.workers))
        self.workers[place].kill()
        self.workers[place] = self.start(work, self.url)

    def end(self) -> dict[str, int]:
        self.stop.set()
        parts = [self.counts.get(timeout=60) for _ in self.busy]
        for process in [*self.busy, *self.workers]:
            process.kill()
            process.join()
        return sum_up(parts)


@contextmanager
def crowd(engine: Engine) -> Iterator[Crowd]:
    around = Crowd(engine.url.render_as_string(hide_password=False))
    try:
        yield around
    finally:
        for process in [*around.busy, *around.workers]:
            process.kill()


def when_few_wait(exchange: Callable[..., object]) -> None:
    """Exchange the columns once so few rows wait, which on a busy machine may take its time."""
    end = time.monotonic() + 120
    while True:
        try:
            exchange(max_pending=50)
        except CatalogError as error:
            if "still wait" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.mark.slow
def test_nobody_notices(application: Engine) -> None:
    change = Reembedding(application, "articles.embedding")
    with crowd(application) as around:
        time.sleep(4)  # processes are up, and have looked
        change.expand(NEW)
        for _ in range(3):
            time.sleep(1)
            around.kill_a_worker()
        change.fill()
        change.build_index()
        for exchange in (change.swap, change.roll_back, change.swap):
            when_few_wait(exchange)
            time.sleep(2)
            around.kill_a_worker()
        change.contract()
        time.sleep(1)
        total = around.end()
    assert total["failed"] == total["mixed"] == total["write failures"] == 0, total
    assert total["found"] == total["searches"] > 100, total
    assert total["writes"] > 50, total
    embeddb.drain(application)
    with connect(application) as db:
        prepare(db)
        [target] = targets(db)
        assert list(verify(db, target, NEW)) == []
        assert db.execute("SELECT DISTINCT vector_dims(embedding) FROM articles").fetchall() == [(NEW.dim,)]


def command(engine: Engine, *arguments: str) -> str:
    url = engine.url.render_as_string(hide_password=False)
    result = CliRunner().invoke(build(), ["reembed", "articles.embedding", *arguments, "-u", url])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def dims(engine: Engine, column: str = "embedding") -> list[int]:
    with engine.connect() as connection:
        query = text(f"SELECT DISTINCT vector_dims({column}) FROM articles WHERE {column} IS NOT NULL")
        return list(connection.scalars(query))


def test_by_command_with_pause_return_and_end(application: Engine) -> None:
    to = f'{{"type": "hashing", "dim": {NEW.dim}}}'
    assert "no change of encoder" in command(application)
    assert f"{ROWS} rows wait" in command(application, "--to", to, "--queue-only")
    assert "paused" in command(application, "--pause")
    embeddb.drain(application)
    assert dims(application, "embedding__next") == []
    assert "the new column is being filled" in command(application, "--resume", "--no-swap")
    assert dims(application, "embedding__next") == [NEW.dim]
    assert "is of the new encoder" in command(application, "--resume")
    assert dims(application) == [NEW.dim]
    assert "serves as before" in command(application, "--rollback")
    assert dims(application) == [OLD.dim]
    command(application, "--resume")
    assert "gone" in command(application, "--contract")
    with application.connect() as connection:
        indexes = connection.scalars(text("SELECT indexname FROM pg_indexes WHERE tablename = 'articles' ORDER BY 1"))
        assert list(indexes) == ["articles_pkey", "ix_articles_embedding_hnsw"]
    assert "no change of encoder" in command(application)


def test_a_change_that_is_abandoned_leaves_nothing(application: Engine) -> None:
    change = Reembedding(application, "articles.embedding")
    change.expand(NEW)
    change.fill()
    change.build_index()
    change.abandon()
    assert change.progress().state == "none"
    with application.connect() as connection:
        assert [column["name"] for column in inspect(connection).get_columns("articles")] == [
            "id",
            "title",
            "embedding",
        ]
        assert connection.scalar(text("SELECT count(*) FROM embeddb.encoder")) == 1


def test_an_index_that_was_left_invalid_is_built_anew_whatever_the_table_is_called(engine18: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Share(Base):
        __tablename__ = 'Shares "50 %s"'
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[embeddb.Vector | None] = embeddb.embedding_column("title", encoder=OLD)

    Base.metadata.create_all(engine18)
    embeddb.register(engine18, Base, install=True)
    change = Reembedding(engine18, f"{Share.__tablename__}.embedding")
    change.expand(NEW)
    name = change.build_index()
    valid = text("SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname = :name")
    with engine18.begin() as connection:
        leave = "UPDATE pg_index SET indisvalid = false FROM pg_class c WHERE c.oid = indexrelid AND relname = :name"
        connection.execute(text(leave), {"name": name})
        assert connection.scalar(valid, {"name": name}) is False
    assert change.build_index() == name
    with engine18.connect() as connection:
        assert connection.scalar(valid, {"name": name}) is True
