"""Rows in clusters, as embeddings of real texts are, and tables of them with every kind of filter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Computed, Connection, ForeignKey, Integer, insert, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from embeddb import HNSW, IVFFlat, Vector, bulk_load, embedding_column
from embeddb.encoders import Hashing

DIM, ROWS, CLUSTERS = 64, 12_000, 60
HASHING = Hashing(dim=DIM)


def clustered(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors, and the cluster of each."""
    centres = np.random.default_rng(1).normal(size=(CLUSTERS, DIM))
    random = np.random.default_rng(seed)
    cluster = random.integers(CLUSTERS, size=rows)
    vectors = centres[cluster] + 0.7 * random.normal(size=(rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), cluster


VECTORS, CLUSTER = clustered(ROWS, 2)
QUERIES, QUERY_CLUSTER = clustered(20, 3)


class Base(DeclarativeBase):
    """The tables of these tests."""


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    country: Mapped[str]


class Row(Base):
    """``tenth``, ``hundredth``, ``thousandth``: numbers that each so many rows share, whatever their vectors are."""

    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenth: Mapped[int] = mapped_column(index=True)
    hundredth: Mapped[int] = mapped_column(index=True)
    thousandth: Mapped[int] = mapped_column(index=True)
    cluster: Mapped[int] = mapped_column(index=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey(Owner.id), index=True)
    owner: Mapped[Owner] = relationship()
    body: Mapped[str]
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    numbers: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    words: Mapped[Any] = mapped_column(TSVECTOR, Computed("to_tsvector('simple', body)", persisted=True), deferred=True)
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING)


INDEXES: dict[str, HNSW | IVFFlat] = {
    "binary": HNSW(cast="binary"),
    "prefix": HNSW(prefix=32),
    "half_prefix": HNSW(prefix=32, cast="halfvec"),
    "binary_prefix": HNSW(prefix=48, cast="binary"),
    "ivfflat": IVFFlat(lists=30),
    "ivfflat_prefix": IVFFlat(lists=30, prefix=32),
}


def _reduced(name: str, index: HNSW | IVFFlat) -> type[Any]:
    attributes = {
        "__tablename__": f"row_{name}",
        "id": mapped_column(primary_key=True),
        "tenth": mapped_column(index=True),
        "body": mapped_column(),
        "embedding": embedding_column("body", encoder=HASHING, index=index),
        "__annotations__": {"id": Mapped[int], "tenth": Mapped[int], "body": Mapped[str]},
    }
    return type(f"Row{name.title().replace('_', '')}", (Base,), attributes)


#: A table for every index that holds less than the vectors, and IVFFlat.
REDUCED = {name: _reduced(name, index) for name, index in INDEXES.items()}


def fill(connection: Connection, *models: Any) -> None:
    """Create the tables and load them, the vector indexes last."""
    tables: list[Any] = [model.__table__ for model in models]
    Base.metadata.create_all(connection, tables=[Base.metadata.tables["owner"], *tables])
    number = np.arange(ROWS)
    columns: dict[str, Any] = {
        "id": number,
        "tenth": number % 10,
        "body": [f"row {n} {'even' if n % 2 == 0 else 'odd'} of {n % 100}" for n in number],
        "embedding": VECTORS,
    }
    for model in models:
        vector_index = next(index for index in model.__table__.indexes if index.dialect_kwargs.get("postgresql_using"))
        vector_index.drop(connection)
        if model is Row:
            connection.execute(insert(Owner), [{"id": n, "country": "nz" if n % 20 == 0 else "at"} for n in range(200)])
            more = {
                "hundredth": number % 100,
                "thousandth": number % 1000,
                "cluster": CLUSTER,
                "owner_id": number % 200,
                "facts": [{"colour": "red" if n % 10 == 3 else "blue"} for n in number],
                "numbers": [[int(n) % 7, int(n) % 11] for n in number],
            }
            bulk_load(connection, model, columns | more)
        else:
            bulk_load(connection, model, columns)
        vector_index.create(connection)
    connection.execute(text("ANALYZE"))


def nearest_ids(query: Any, k: int = 10, among: Any = None) -> list[int]:
    """The ids of the rows nearest by cosine, by numpy; ``among``: a mask of the rows."""
    distances = 1 - VECTORS @ query / np.linalg.norm(query)
    if among is not None:
        distances = np.where(among, distances, np.inf)
        k = min(k, int(np.sum(among)))
    return [int(n) for n in np.argsort(distances, kind="stable")[:k]]


def through_index(session: Session) -> None:
    """Plans as for a table too large to be read."""
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        session.execute(text(f"SET LOCAL {setting} = off"))
