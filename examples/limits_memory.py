"""What vectors cost, and what can be saved: halves for floats, bits in the index with the vectors read for the best.

Three columns of the same vectors, which differ in their index alone; the query is written the same. ``embeddb advise``
weighs all that for a table of yours, ``embeddb recall`` measures what is found. A table as small as this may be read
whole: then, too, the last column's rows are ranked by their bits, and the best of them by their vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Figure, database, run
from sqlalchemy import func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import HNSW, Vector, nearest, vector_column

ROWS, DIM, K = 1500, 256, 10


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    full: Mapped[Vector | None] = vector_column(DIM, index=HNSW())
    half: Mapped[Vector | None] = vector_column(DIM, index=HNSW(cast="halfvec"))
    bits: Mapped[Vector | None] = vector_column(DIM, index=HNSW(cast="binary"))


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    surface = rng.standard_normal((24, DIM))  # as embeddings do, these lie near a surface of few dimensions
    vectors = np.asarray(rng.standard_normal((ROWS, 24)) @ surface + rng.standard_normal((ROWS, DIM)), np.float32)
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Row(full=vector, half=vector, bits=vector) for vector in vectors)
        session.commit()
        session.execute(text("ANALYZE rows"))

        queries = vectors[rng.permutation(ROWS)[:30]] + 0.5 * rng.standard_normal((30, DIM)).astype(np.float32)

        def found(column: Any, exact: bool = False) -> list[set[int]]:
            return [
                {row.id for row in session.scalars(nearest(column, query, exact=exact).limit(K))} for query in queries
            ]

        truth = found(Row.full, exact=True)
        rows = session.execute(select(Row.id, Row.full)).all()
        away = [((np.stack([row.full for row in rows]) > 0) != (query > 0)).sum(1) for query in queries]
        by_bits = [{rows[place].id for place in each.argsort(kind="stable")[:K]} for each in away]

        size, recall = {}, {"alone": share(by_bits, truth)}
        for column in (Row.full, Row.half, Row.bits):
            name = column.key
            size[name] = session.scalars(select(func.pg_relation_size(f"ix_rows_{name}_hnsw"))).one()
            recall[name] = share(found(column), truth)
            print(f"{name}: {size[name] / ROWS:.0f} bytes a row in the index, recall {recall[name]:.2f}")
    return [
        Figure("index saved by bits", 1 - size["bits"] / size["full"], 1 - size["half"] / size["full"], "by halves"),
        Figure("recall by bits, reranked", recall["bits"], recall["alone"], "by bits alone"),
    ]


def share(found: list[set[int]], truth: list[set[int]]) -> float:
    """The mean recall@k."""
    return sum(len(one & two) for one, two in zip(found, truth, strict=True)) / K / len(truth)


if __name__ == "__main__":
    run(main)
