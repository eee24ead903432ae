"""Tables with clustered vectors, on which the helpers of queries are held against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Select, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import HNSW, Vector, bulk_load, embedding_column
from embeddb.encoders import Hashing

Array = npt.NDArray[Any]

DIM = 24
ROWS = 3000
HASHING = Hashing(dim=DIM)
DIALECT: Any = create_engine("postgresql+psycopg://").dialect


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    cat: Mapped[int] = mapped_column(index=True)
    title: Mapped[str | None]
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=HASHING)


class Half(Base):
    """By L2, through a half-precision index."""

    __tablename__ = "half"
    id: Mapped[int] = mapped_column(primary_key=True)
    cat: Mapped[int] = mapped_column(index=True)
    title: Mapped[str | None]
    embedding: Mapped[Vector | None] = embedding_column(
        "title", encoder=HASHING, metric="l2", index=HNSW(cast="halfvec")
    )


class Pair(Base):
    """A key of two columns, half-precision storage, the inner product."""

    __tablename__ = "pair"
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    vector: Mapped[Vector | None] = embedding_column(
        "title", encoder=HASHING, metric="inner_product", storage="halfvec", name="v"
    )


def clustered(rows: int = ROWS, seed: int = 7) -> Array:
    """Vectors around thirty centres: shape (rows, DIM), float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, DIM))
    vectors: Array = (centres[rng.integers(30, size=rows)] + 0.4 * rng.normal(size=(rows, DIM))).astype(np.float32)
    return vectors


VECTORS = clustered()


def fill(engine: Engine) -> None:
    """Create the tables with a vector in each row, and the statistics of them."""
    Base.metadata.create_all(engine)
    numbers = np.arange(ROWS)
    titles = [f"row {n}" for n in range(ROWS)]
    with engine.begin() as connection:
        for model in (Item, Half):
            _load(connection, model, id=numbers, cat=numbers % 500, title=titles, embedding=VECTORS)
        _load(connection, Pair, left=numbers // 10, right=[f"{n % 10}" for n in numbers], title=titles, vector=VECTORS)
        connection.execute(text("ANALYZE"))


def _load(connection: Connection, model: type[Base], **columns: Any) -> None:
    indexes = model.metadata.tables[model.__tablename__].indexes
    for index in indexes:
        index.drop(connection)
    bulk_load(connection, model, columns)
    for index in indexes:
        index.create(connection)


def prefer_indexes(session: Session) -> None:
    """Three thousand rows are few enough for the planner to read them all: let it use indexes all the same."""
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        session.execute(text(f"SET LOCAL {setting} = off"))


def plan(session: Session, statement: Select[Any], options: str = "COSTS OFF, VERBOSE") -> str:
    """The lines of the statement's plan."""
    compiled = statement.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
    processors: Any = compiled._bind_processors
    values = {n: processors[n](v) if n in processors else v for n, v in compiled.params.items()}
    rows = session.connection().exec_driver_sql(f"EXPLAIN ({options}) {compiled}", values)
    return "\n".join(row[0] for row in rows)


def distances(metric: str, vectors: Array, query: Array) -> Array:
    """Of each row of ``vectors`` to ``query``: shape (rows,)."""
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        found: Array = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        return found
    return np.linalg.norm(vectors - query, axis=1) if metric == "l2" else -(vectors @ query)


def unit(vectors: Array) -> Array:
    """Each vector at length 1."""
    scaled: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
