"""The odd ones out: rows that are far from all others.

Nobody says what a fault looks like. A line of a log whose neighbours are far away is one that was never seen; the
distance to its fifth neighbour is its score (Ramaswamy, Rastogi and Shim 2000).
"""

from __future__ import annotations

import random

from common import Figure, database, run
from sqlalchemy import func
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from embeddb import Vector, embedding_column, knn_join
from embeddb.encoders import Hashing

USUAL = (
    "GET /products/{n} 200 {m} ms",
    "GET /search?q=boots&page={n} 200 {m} ms",
    "POST /cart/items 201 product {n} added, {m} ms",
    "user {n} signed in from 10.0.{m}.7",
    "worker {n} took job {m} from queue mail",
    "cache hit for key product:{n}, ttl {m} s",
    "checkpoint complete: wrote {n} buffers in {m} ms",
)
ODD = (
    "segmentation fault in libpayment.so at 0x7f3a",
    "certificate of shop.example expired 2 days ago",
    "user root signed in from 203.0.113.9 after 412 failed attempts",
    "GET /../../etc/passwd 403",
    "disk /dev/sda1 is 98% full",
    "clock skew of 4100 s detected between nodes",
    "relation orders has 0 rows, expected 91,204",
    "POST /cart/items 201 product -1 added at a price of -99.00",
    "worker lost connection to queue mail, retrying for the 60th time",
    "OutOfMemoryError while rendering invoice",
)


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    message: Mapped[str]
    odd: Mapped[bool]  # only to count what was found
    embedding: Mapped[Vector | None] = embedding_column("message", encoder=Hashing(dim=256))


def main(url: str | None = None) -> list[Figure]:
    rng = random.Random(0)
    lines = [
        Line(message=rng.choice(USUAL).format(n=rng.randrange(1, 10_000), m=rng.randrange(1, 256)), odd=False)
        for _ in range(700)
    ]
    lines += [Line(message=message, odd=True) for message in ODD]
    rng.shuffle(lines)
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(lines)
        session.commit()
        other = aliased(Line)
        pairs = knn_join(Line.embedding, other.embedding, k=5)
        score = func.max(pairs.selected_columns["distance"])  # of the five, the fifth
        ranked = pairs.order_by(None).with_only_columns(Line, score).group_by(Line.id).order_by(score.desc())
        first = session.execute(ranked.limit(len(ODD))).all()
        for row, distance in first:
            print(f"{distance:.2f}  {'' if row.odd else '(usual) '}{row.message}")
        longest = sorted(lines, key=lambda line: -len(line.message))[: len(ODD)]
        found = sum(row.odd for row, _ in first) / len(ODD)
        control = sum(line.odd for line in longest) / len(ODD)
    return [Figure("odd lines among the first ten", found, control, "the longest lines")]


if __name__ == "__main__":
    run(main)
