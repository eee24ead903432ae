"""The table that the report searches: made, filled, indexed and asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.generated import DIM, Array, K
from embeddb import bulk_load, embedding_column, nearest
from embeddb.encoders import Hashing
from embeddb.spec import VectorIndex

TITLE = "title of row {}"


def model(index: VectorIndex | None, table: str = "bench_report") -> Any:
    """The table's class with that index."""

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = table
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[Any] = embedding_column("title", encoder=Hashing(dim=DIM), index=index)

    return Row


def fill(engine: Engine, vectors: Array, table: str = "bench_report") -> None:
    """Load the table anew, without an index."""
    row = model(None, table)
    titles = [TITLE.format(number) for number in range(len(vectors))]
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        row.metadata.drop_all(connection)
        row.metadata.create_all(connection)
        bulk_load(connection, row, {"id": np.arange(len(vectors)), "title": titles, "embedding": vectors})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {connection.dialect.identifier_preparer.quote(table)}")


def build(engine: Engine, row: Any) -> tuple[float, int]:
    """Seconds to create the declared index, and its bytes. Whatever index there was is dropped."""
    (index,) = row.__table__.indexes
    with engine.begin() as connection:
        index.drop(connection, checkfirst=True)
        rows = connection.scalar(
            text("SELECT reltuples FROM pg_class WHERE relname = :name"), {"name": row.__tablename__}
        )
        # A graph that does not fit is built many times slower; a parallel build reserves all of it in /dev/shm.
        memory = max(64, int(3 * DIM * float(rows or 0) / 2**19))
        connection.execute(text("SELECT set_config('maintenance_work_mem', :memory, true)"), {"memory": f"{memory}MB"})
        begin = time.perf_counter()
        index.create(connection)
        seconds = time.perf_counter() - begin
        size = connection.scalar(text("SELECT pg_relation_size(CAST(:name AS regclass))"), {"name": index.name})
    return seconds, int(size or 0)


def look(connection: Connection, row: Any, effort: int) -> None:
    """Let searches look so far, in the way that embeddb recall does."""
    (index,) = row.__table__.indexes
    preparer = connection.dialect.identifier_preparer
    comment = f"embeddb recall@{K}: default={effort:d}"
    connection.exec_driver_sql(f"COMMENT ON INDEX {preparer.quote(index.name)} IS '{comment}'")


def searching(session: Session, row: Any) -> Callable[[Array], list[int]]:
    """Search by nearest, for entities."""
    return lambda query: [found.id for found in session.scalars(nearest(row.embedding, query).limit(K))]
