"""Columns and indexes as users of pgvector alone declare them, and what a project leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgvector.sqlalchemy as stock
from sqlalchemy import Column, Engine, Index, Integer, MetaData, Table, Text, cast, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import embeddb
from embeddb import Hashing, Vector, embedding_column
from embeddb.local import LocalPostgres
from tests.migrate.project import Project, differences, schema_of

KEPT: list[type] = []


def items(indexed: bool) -> MetaData:
    """What pgvector's documentation shows, and what it does not."""
    metadata = MetaData()
    vector, half = Column("embedding", stock.Vector(16)), Column("half", stock.HALFVEC(16))
    columns = (Column("id", Integer, primary_key=True), Column("title", Text), vector, half)
    Table("items", metadata, *columns, Column("bits", stock.BIT(16)), Column("sparse", stock.SPARSEVEC(16)))
    if not indexed:
        return metadata

    def hnsw(name: str, on: Any, opclass: str, **more: Any) -> None:
        Index(name, on, postgresql_using="hnsw", postgresql_ops={on.key: opclass}, **more)

    hnsw("plain", vector, "vector_l2_ops", postgresql_with={"m": 8, "ef_construction": 40})
    hnsw("halved", func.cast(vector, stock.HALFVEC(16)).label("halved"), "halfvec_l2_ops")
    hnsw("bits", cast(func.binary_quantize(vector), stock.BIT(16)).label("bits"), "bit_hamming_ops")
    hnsw("first", func.cast(func.subvector(vector, 1, 8), stock.VECTOR(8)).label("first"), "vector_cosine_ops")
    hnsw("some", half, "halfvec_ip_ops", postgresql_where=text("title LIKE 'x%' AND id > 3"))
    Index("lists", vector, postgresql_using="ivfflat", postgresql_with={"lists": 4})  # has an operator class by default
    return metadata


def test_indexes_made_by_hand_are_compared(engine: Engine, tmp_path: Path, server: LocalPostgres) -> None:
    project = Project(tmp_path, engine, items(False))
    project.revise("before")
    project.upgrade()
    before = schema_of(server, engine.url)
    project.metadata = items(True)
    project.revise("indexes")
    project.upgrade()
    project.check()
    project.downgrade()
    assert schema_of(server, engine.url) == before
    with engine.begin() as connection:
        items(True).drop_all(connection)
        items(True).create_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    assert differences(engine, items(True)) == []


def leaving_out(kind: str, name: str) -> dict[str, Callable[..., bool]]:
    def include_object(item: Any, called: str, what: str, reflected: bool, other: Any) -> bool:
        return (what, called) != (kind, name)

    return {"include_object": include_object}


def test_what_a_project_leaves_out_is_left_alone(engine18: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(16))

    KEPT.append(Note)
    with engine18.begin() as connection:
        Base.metadata.create_all(connection)
        connection.exec_driver_sql("DROP INDEX ix_notes_embedding_hnsw")
        connection.exec_driver_sql("CREATE INDEX by_hand ON notes USING hnsw (embedding vector_l2_ops)")
    assert len(differences(engine18, Base.metadata)) == 4  # the catalog, the embedding, and an index each way
    embeddb.register(engine18, Base, install=True)
    [drop] = differences(engine18, Base.metadata, **leaving_out("index", "ix_notes_embedding_hnsw"))
    assert drop[0] == "drop_vector_index"
    [create] = differences(engine18, Base.metadata, include_name=lambda name, kind, parents: name != "by_hand")
    assert create[0] == "create_vector_index"
    assert differences(engine18, Base.metadata, **leaving_out("column", "embedding")) == []
    assert differences(engine18, MetaData(), **leaving_out("table", "notes")) == []
