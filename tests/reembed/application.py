"""A running application for the tests: its model, and processes that search, write and work until they are told."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from embeddb import HNSW, Vector, embedding_column, install, nearest
from embeddb.encoders import Hashing
from embeddb.worker import Options, Worker

ROWS = 400
OLD, NEW = Hashing(dim=48), Hashing(dim=64)


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=OLD, index=HNSW())


def title(number: int) -> str:
    return f"article number {number} of subject {number % 17}"


def search(url: str, stop: Any, counts: Any) -> None:
    """Search by the ORM and by SQL for rows that are there from the start; count what was found, and what failed."""
    engine = create_engine(url)
    factory = sessionmaker(engine)
    install(factory)
    found: dict[str, int] = {"searches": 0, "found": 0, "failed": 0, "mixed": 0}
    while not stop.is_set():
        number = random.randrange(ROWS)
        found["searches"] += 1
        try:
            with factory() as session:
                statement = nearest(Article.embedding, title(number), distance=True).limit(3)
                rows = session.execute(statement).all()
        except Exception as error:
            logging.getLogger(__name__).warning("a search failed: %s", error)
            found["failed"] += 1
            continue
        found["found"] += any(row.Article.title == title(number) for row in rows)
        # A row's own text is at distance 0 by either encoder, and far from it where two are mixed.
        found["mixed"] += bool(rows) and not -1e-4 < rows[0].distance < 1e-3
    counts.put(found)
    engine.dispose()


def write(url: str, stop: Any, counts: Any) -> None:
    """Insert and update rows through the ORM, as a process that was started before the change."""
    engine = create_engine(url)
    factory = sessionmaker(engine)
    install(factory)
    done: dict[str, int] = {"writes": 0, "write failures": 0}
    while not stop.is_set():
        done["writes"] += 1
        try:
            with factory.begin() as session:
                session.add(Article(title=f"fresh {random.random()}"))
                chosen = session.get(Article, random.randrange(ROWS + 1, 2 * ROWS))
                if chosen is not None:
                    chosen.title = f"changed {random.random()}"
        except Exception as error:
            logging.getLogger(__name__).warning("a write failed: %s", error)
            done["write failures"] += 1
        time.sleep(0.02)  # slower than the workers, on a busy machine too
    counts.put(done)
    engine.dispose()


def work(url: str) -> None:
    """A worker, to be killed."""
    logging.disable(logging.WARNING)
    while True:
        try:
            Worker(url, options=Options(lease=2.0, rows=64)).run()
        except (psycopg.OperationalError, OperationalError):
            time.sleep(0.2)


def sum_up(parts: list[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
