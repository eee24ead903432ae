"""A database with texts and vectors, looked into by all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import LocalPostgres, Vector, bulk_load, embedding_column, register
from embeddb.encoders import Hashing
from tests.conftest import fresh_database
from tests.insight.vectors import decaying

ROWS, DIM = 1200, 32
KINDS = ("boat", "bread", "<b>owl</b>")


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str | None]
    kind: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", "body", encoder=Hashing(dim=DIM), index=None)


class Word(Base):
    __tablename__ = "words"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("word", encoder=Hashing(dim=256), index=None)


def vectors() -> Any:
    """Rows 0 to 99 come twice; the lengths go from 1 to 2."""
    made = decaying(ROWS, DIM)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made[100:200] = made[:100]
    return (made * np.linspace(1, 2, ROWS, dtype=np.float32)[:, None]).astype(np.float32)


@pytest.fixture(scope="session")
def engine(server18: LocalPostgres) -> Iterator[Engine]:
    with fresh_database(server18) as url:
        engine = create_engine(url)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            kinds = [KINDS[n % 3] for n in range(ROWS)]
            columns: dict[str, Any] = {
                "id": np.arange(ROWS),
                "title": [f"{kind} {n}" for n, kind in enumerate(kinds)],
                "body": ["flying boats land on water" if n % 2 else None for n in range(ROWS)],
                "kind": kinds,
                "embedding": vectors(),
            }
            bulk_load(connection, Note, columns)
        register(engine, Base, install=True)
        yield engine
        engine.dispose()


@pytest.fixture(scope="session")
def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)
