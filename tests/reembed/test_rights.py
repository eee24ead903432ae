"""What a column has besides its vectors goes on through a change of encoder: who may read it, and what it is for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import embeddb
from embeddb import Hashing, Vector, embedding_column
from embeddb.worker.reembed import Reembedding


class Base(DeclarativeBase):
    metadata = MetaData()


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("text", encoder=Hashing(8), comment="what it is about")


@pytest.fixture
def reader(engine18: Engine) -> Iterator[str]:
    """A role that may read two columns, and no more."""
    Base.metadata.create_all(engine18)
    embeddb.register(engine18, Base, install=True)
    name = f'"Reader {uuid.uuid4().hex[:8]}"'
    with engine18.begin() as connection:
        connection.exec_driver_sql("INSERT INTO notes (id, text) VALUES (1, 'one'), (2, 'two')")
        connection.exec_driver_sql(f"CREATE ROLE {name}; GRANT SELECT (id, embedding) ON notes TO {name}")
    embeddb.drain(engine18, Base)
    yield name
    with engine18.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_who_may_search_one_column_may_search_the_next(engine18: Engine, reader: str) -> None:
    def dimensions() -> Any:
        with engine18.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {reader}")
            return connection.scalar(
                text("SELECT vector_dims(embedding) FROM notes ORDER BY embedding <=> embedding, id")
            )

    def comment() -> Any:
        with engine18.begin() as connection:
            # Indexes have attributes of that name too.
            of_notes = "attrelid = 'notes'::regclass AND attname = 'embedding'"
            return connection.scalar(
                text(f"SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE {of_notes}")
            )

    assert (dimensions(), comment()) == (8, "what it is about")
    change = Reembedding(engine18, "notes.embedding")
    change.expand(Hashing(12))
    change.fill()
    change.build_index()
    change.swap()
    assert (dimensions(), comment()) == (12, "what it is about")
    change.roll_back()
    assert (dimensions(), comment()) == (8, "what it is about")
    change.swap()
    change.contract()
    assert (dimensions(), comment()) == (12, "what it is about")
