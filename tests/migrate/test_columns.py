"""Columns with names, comments and neighbours as tables in use have them; and sources that go."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, Integer, MetaData, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import HNSW, Hashing, Vector, bit_column, embedding_column, vector_column
from embeddb.local import LocalPostgres
from tests.migrate.project import Project, schema_of

KEPT: list[type] = []


def notes(*sources: str, embedded: bool = True, encoder: int = 16) -> MetaData:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = 'Not"es of 50%'
        id: Mapped[int] = mapped_column(Integer, primary_key=True)
        title: Mapped[str] = mapped_column(Text)
        if embedded:
            first: Mapped[str | None] = bit_column(8)
            embedding: Mapped[Vector | None] = embedding_column(
                *sources, name="é: %s", comment="it's made", encoder=Hashing(encoder), index=HNSW(cast="halfvec")
            )
            third: Mapped[str | None] = bit_column(16, index=None)
            fourth: Mapped[str | None] = mapped_column(Text)
        if "body" in sources:
            body: Mapped[str | None] = mapped_column(Text)

    KEPT.append(Note)
    return Base.metadata


def test_a_source_goes_when_nothing_is_made_of_it(engine: Engine, tmp_path: Path, server: LocalPostgres) -> None:
    """And columns that went are added again as they stood."""
    dumps = []
    project = Project(tmp_path, engine, MetaData())
    for metadata in (notes("title", "body"), notes("title"), notes("title", embedded=False)):
        project.metadata = metadata
        project.revise("next")
        project.upgrade()
        project.check()
        dumps.append(schema_of(server, engine.url))
    for dumped in (dumps[1], dumps[0]):
        project.downgrade()
        assert schema_of(server, engine.url) == dumped
    project.upgrade()
    assert schema_of(server, engine.url) == dumps[2]


def test_the_first_declared_has_the_short_names(engine: Engine, tmp_path: Path, server: LocalPostgres) -> None:
    """Of several that one transaction registers; and again when they come back."""

    def books(*columns: str) -> MetaData:
        class Base(DeclarativeBase):
            pass

        vectors = {name: embedding_column("title", encoder=Hashing(8), index=None) for name in columns}
        keys = {"id": mapped_column(Integer, primary_key=True), "title": mapped_column(Text)}
        KEPT.append(type("Book", (Base,), {"__tablename__": "books", **keys, **vectors}))
        return Base.metadata

    project = Project(tmp_path, engine, MetaData())
    dumps = []
    for metadata in (books("of_title", "also", "by_title"), books("of_title"), MetaData()):
        project.metadata = metadata
        project.revise("next")
        project.upgrade()
        dumps.append(schema_of(server, engine.url))
    for dumped in (dumps[1], dumps[0]):
        project.downgrade()
        assert schema_of(server, engine.url) == dumped
    with engine.connect() as connection:
        [body] = connection.scalars(text("SELECT prosrc FROM pg_proc WHERE proname = 'books_search'"))
    assert "t.of_title" in body


def test_a_source_stays_while_the_encoder_is_changed(
    engine18: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, engine18, notes("title", "body"))
    project.revise("first")
    project.upgrade()
    project.metadata = notes("title", encoder=24)
    written = project.revise("expand")
    assert "op.expand_embedding(" in written
    assert "drop_column" not in written
    assert "body stays until the change of encoder is contracted" in caplog.text
    project.upgrade()
    assert "op.swap_embedding(" in project.revise("swap")
    project.upgrade()
    project.check()
    with engine18.begin() as connection:
        connection.exec_driver_sql("SELECT embeddb.contract(embeddb.name(serving)) FROM embeddb.reembedding")
    assert "'body'" in project.revise("rest")
    project.upgrade()
    project.check()


def test_vectors_that_are_made_elsewhere_are_kept_by_a_downgrade(engine18: Engine, tmp_path: Path) -> None:
    def items(embedded: bool) -> MetaData:
        class Base(DeclarativeBase):
            pass

        class Item(Base):
            __tablename__ = "items"
            id: Mapped[int] = mapped_column(Integer, primary_key=True)
            if embedded:
                factors: Mapped[Vector | None] = vector_column(4, storage="halfvec")
                hash: Mapped[str | None] = bit_column(4)

        KEPT.append(Item)
        return Base.metadata

    project = Project(tmp_path, engine18, items(False))
    project.revise("before")
    project.upgrade()
    project.metadata = items(True)
    project.revise("elsewhere")
    project.upgrade()
    project.check()
    with engine18.begin() as connection:
        connection.exec_driver_sql("INSERT INTO items (factors) VALUES ('[1,2,3,4]')")
    project.downgrade()
    with engine18.connect() as connection:
        assert set(connection.execute(text("SELECT * FROM items")).keys()) == {"id", "factors"}
    project.upgrade()
    project.check()
