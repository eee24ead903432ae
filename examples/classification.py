"""Documents sorted into topics, by the labels of the documents nearest to them.

No classifier is trained: a document that a person sorted is a row, and counts from the moment it is there.
"""

from __future__ import annotations

from collections import Counter

from common import Figure, database, run
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, classify, embedding_column
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import Hashing, SentenceTransformer


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    topic: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=SentenceTransformer("all-MiniLM-L6-v2"))
    by_letters: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(dim=384))


def main(url: str | None = None) -> list[Figure]:
    texts = read_corpus()
    counts = Counter(text["topic"] for text in texts)
    texts = [text for text in texts if counts[text["topic"]] >= 12]
    sorted_by_hand, new = texts[::2], texts[1::2]

    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Document(body=text["body"], topic=text["topic"]) for text in sorted_by_hand)
        session.commit()

        bodies = [text["body"] for text in new]
        found = {}
        for embedding in (Document.embedding, Document.by_letters):
            votes = session.execute(classify(embedding, bodies, label=Document.topic, k=7)).all()
            found[embedding.key] = {row.ordinal: row for row in reversed(votes)}  # the most votes come first

    for number, text in enumerate(new[:8]):
        row = found["embedding"][number]
        print(f"{row.label:12} {row.share:4.0%}  {text['title']}")
    right = {
        key: sum(rows[number].label == text["topic"] for number, text in enumerate(new)) / len(new)
        for key, rows in found.items()
    }
    return [Figure("texts in their topic", right["embedding"], right["by_letters"], "the same by hashed words")]


if __name__ == "__main__":
    run(main)
