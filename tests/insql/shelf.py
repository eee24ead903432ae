"""A table of vectors with its embedding registered, and NumPy's answers about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import CHAR, Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, embedding_column
from embeddb.catalog.register import register
from embeddb.encoders import Hashing
from tests.catalog.application import Database

Array = npt.NDArray[Any]
KINDS = ("note", "paper", "report", None)
QUERY = "planes that land on water"


@dataclass(frozen=True)
class Shelf:
    """Rows 1 to n of ``articles``; row i has ``vectors[i - 1]``, and ``query`` is what is remembered of QUERY."""

    db: Database
    metric: str
    vectors: Array
    query: Array

    def distances(self, to: Array | None = None) -> Array:
        """From every row, by the declared metric."""
        to = self.query if to is None else to
        if self.metric == "l2":
            return np.asarray(np.linalg.norm(self.vectors - to, axis=1))
        if self.metric == "l1":
            return np.asarray(np.abs(self.vectors - to).sum(axis=1))
        if self.metric == "inner_product":
            return np.asarray(-self.vectors @ to)
        return np.asarray(1 - self.vectors @ to / np.linalg.norm(self.vectors, axis=1) / np.linalg.norm(to))

    def nearest(self, k: int, to: Array | None = None, without: int = 0) -> list[int]:
        """Keys of the k nearest rows."""
        order = np.argsort(self.distances(to), kind="stable") + 1
        return [int(key) for key in order if key != without][:k]

    def rows(self, statement: Any, *values: Any) -> list[Any]:
        return self.db.execute(statement, values or None).fetchall()

    def plan(self, statement: Any) -> str:
        return "\n".join(line for (line,) in self.rows("EXPLAIN (COSTS OFF) " + statement))


def shelve(engine: Engine, db: Database, rows: int = 600, dim: int = 16, **changes: Any) -> Shelf:
    """Make, fill and register the table. ``changes`` are further arguments of its embedding_column."""

    class Base(DeclarativeBase):
        pass

    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str | None]
        body: Mapped[str | None]
        year: Mapped[int | None]
        kind: Mapped[str | None]
        code: Mapped[str | None] = mapped_column(CHAR(3))
        embedding: Mapped[Vector | None] = embedding_column("title", "body", encoder=Hashing(dim), **changes)

    Base.metadata.create_all(engine)
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(12, dim))
    vectors = centres[rng.integers(12, size=rows)] + 0.5 * rng.normal(size=(rows, dim))
    query = centres[3] + 0.3 * rng.normal(size=dim)
    with db.cursor().copy("COPY articles FROM STDIN") as copy:
        for key, vector in enumerate(vectors, 1):
            kind = KINDS[key % len(KINDS)]
            copy.write_row(
                (key, f"title {key}", f"text {key}", 1900 + key % 60, kind, "abc", json.dumps(vector.tolist()))
            )
    db.execute("REINDEX TABLE articles; ANALYZE articles")  # an IVFFlat index knows only what was there
    register(engine, Base)
    remember(db, QUERY, query)
    return Shelf(db, changes.get("metric", "cosine"), vectors, query)


def remember(db: Database, query: str, vector: Array, embedding: str = "articles.embedding") -> None:
    db.execute("SELECT embeddb.remember(%s, %s, %s)", [embedding, query, json.dumps(vector.tolist())])
