"""Is a sentence of a review for or against the film?

A sentence is for it if it is nearer to the mean of the sentences judged so than to the mean of the others; the database
computes both. The sentences are Pang and Lee's, 200 of which come with gensim (``pip install 'embeddb[words]'``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gensim.test.utils
from common import Figure, database, run
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import VECTOR, Vector, embedding_column
from embeddb.encoders import Hashing, SentenceTransformer

FOLDS = 5


class Base(DeclarativeBase):
    pass


class Review(Base):
    __tablename__ = "reviews"
    id: Mapped[int] = mapped_column(primary_key=True)
    sentence: Mapped[str]
    liked: Mapped[bool]
    fold: Mapped[int]
    embedding: Mapped[Vector | None] = embedding_column("sentence", encoder=SentenceTransformer("all-MiniLM-L6-v2"))
    by_letters: Mapped[Vector | None] = embedding_column("sentence", encoder=Hashing(dim=384))


def judged(session: Session, embedding: Any, fold: int) -> list[tuple[Review, float]]:
    """A fold's sentences, and how much nearer each is to what was liked in the others: above 0, it is liked."""
    mean = func.avg(embedding, type_=VECTOR(384))
    means = select(Review.liked, mean).where(Review.fold != fold).group_by(Review.liked)
    disliked, liked = (vector for _, vector in session.execute(means.order_by(Review.liked)))
    lead = embedding.cosine_distance(disliked) - embedding.cosine_distance(liked)
    return [(review, score) for review, score in session.execute(select(Review, lead).where(Review.fold == fold))]


def main(url: str | None = None) -> list[Figure]:
    path = Path(gensim.test.utils.datapath("pang_lee_polarity.cor"))
    lines = [line.split(maxsplit=1) for line in path.read_text(encoding="cp1252").splitlines()]
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(
            Review(sentence=sentence, liked=label == "__label__pos", fold=number % FOLDS)
            for number, (label, sentence) in enumerate(lines)
        )
        session.commit()
        right = {}
        for embedding in (Review.embedding, Review.by_letters):
            rows = [row for fold in range(FOLDS) for row in judged(session, embedding, fold)]
            right[embedding.key] = sum((score > 0) == review.liked for review, score in rows) / len(rows)
            if embedding is Review.embedding:
                ranked = sorted(rows, key=lambda row: row[1])
                for review, score in (*ranked[-3:][::-1], *ranked[:3]):
                    print(f"{score:+.2f}  {review.sentence.strip()}")
    return [Figure("sentences judged right", right["embedding"], right["by_letters"], "the same by hashed words")]


if __name__ == "__main__":
    run(main)
