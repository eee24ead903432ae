"""The curse of dimensionality: in many dimensions everything is far from everything, so that nearest means little.

True of random vectors, as the first lines show. Embeddings are not random: their rows lie near a surface of far fewer
dimensions, which ``diagnose`` measures and ``embeddb fit-pca`` makes use of. A quarter of the dimensions, fitted to the
rows, finds most of what all of them find; vectors that are simply cut off do not.
"""

from __future__ import annotations

import re
import tempfile
from typing import Any

import numpy as np
from common import Figure, database, engine_of, run
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Vector, diagnose, embedding_column, for_each
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import Reduced, SentenceTransformer
from embeddb.insight.pca import fit_pca

FEW, K = 96, 10


class Base(DeclarativeBase):
    pass


class Sentence(Base):
    __tablename__ = "sentences"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=SentenceTransformer("all-MiniLM-L6-v2"))


def contrast(dim: int, rng: np.random.Generator) -> float:
    """How much farther the farthest of 1,000 random vectors is than the nearest, as a share of the latter."""
    away = np.linalg.norm(rng.standard_normal((1000, dim)) - rng.standard_normal(dim), axis=1)
    return float(away.max() / away.min() - 1)


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    for dim in (2, 16, 128, 1024):
        print(f"{dim:5} random dimensions: the farthest is {contrast(dim, rng):.0%} farther than the nearest")
    bodies = [part for text in read_corpus() for part in re.split(r"(?<=[.!?])\s+", text["body"])]
    with tempfile.TemporaryDirectory() as folder, database(Base, url) as sessions, sessions() as session:
        session.add_all(Sentence(body=body) for body in bodies)
        session.commit()
        engine = engine_of(sessions)
        found = diagnose(engine, Sentence.embedding)
        print(f"{found.dim} dimensions of sentences: the rows fill as many as {found.intrinsic:.0f} would")

        fitted = fit_pca(engine, Sentence.embedding, FEW, folder)  # in the shell: embeddb fit-pca
        assert fitted.encoder is not None
        reduced: Reduced = fitted.encoder

        class Shorter(DeclarativeBase):
            pass

        class Short(Shorter):
            __tablename__ = "short"
            id: Mapped[int] = mapped_column(primary_key=True)
            body: Mapped[str]
            embedding: Mapped[Vector | None] = embedding_column("body", encoder=reduced)

        Shorter.metadata.create_all(engine)
        rows = session.execute(select(Sentence.id, Sentence.body, Sentence.embedding)).all()
        for row, vector in zip(rows, reduced.project(np.stack([row.embedding for row in rows])), strict=True):
            session.add(
                Short(id=row.id, body=row.body, embedding=vector)
            )  # as they are stored: nothing is encoded anew
        session.commit()
        questions = [text["title"] for text in read_corpus()[::6]]
        full, few = (nearest_ids(session, each, questions) for each in (Sentence, Short))
        print(f"{questions[0]}: rows {sorted(full[0])} by {found.dim} dimensions, {sorted(few[0])} by {FEW}")
        kept = sum(len(one & two) for one, two in zip(full, few, strict=True)) / (K * len(questions))
        cut = next(each.recall for each in found.reductions if (each.kind, each.dim) == ("prefix", FEW))
    return [Figure(f"of the {K} nearest, found by {FEW} dimensions", kept, cut, f"the first {FEW} dimensions")]


def nearest_ids(session: Session, entity: Any, questions: list[str]) -> list[set[int]]:
    """The keys of the rows nearest to each question."""
    found: list[set[int]] = [set() for _ in questions]
    for row in session.execute(for_each(entity.embedding, questions, K)):
        found[row.ordinal].add(row[1].id)
    return found


if __name__ == "__main__":
    run(main)
