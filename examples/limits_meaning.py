"""A vector says nothing to a reader. Its neighbours do, and so do the words without which a text would not match.

``embeddb why table.column "the query" KEY`` shows for a row what ``explain_match`` computes here; ``embeddb map`` draws
all rows in a plane; ``nearest_words`` names the words around any vector.
"""

from __future__ import annotations

from common import Figure, database, run
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, embedding_column, explain_match, nearest
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import SentenceTransformer

ENCODER = SentenceTransformer("all-MiniLM-L6-v2")
TELLING = 3


class Base(DeclarativeBase):
    pass


class Page(Base):
    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=ENCODER)


def main(url: str | None = None) -> list[Figure]:
    texts = [text for text in read_corpus() if len(text["body"]) < 150][::3]
    # Each page is of two subjects: what makes it match a query on one must be words of that half.
    halves = list(zip(texts[::2], texts[1::2], strict=False))[:6]
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Page(body=f"{one['body']} {other['body']}") for one, other in halves)
        session.commit()
        right = words = 0
        chance = 0.0
        for one, other in halves:
            page = session.scalars(nearest(Page.embedding, one["title"]).limit(1)).one()
            own = {word.strip(".,;:!?").casefold() for word in one["body"].split()}
            foreign = {word.strip(".,;:!?").casefold() for word in other["body"].split()} - own
            telling = [weight.word for weight in explain_match(ENCODER, one["title"], page.body)[:TELLING]]
            print(f"{one['title']} found a page by its words: {', '.join(telling)}")
            right += sum(word.casefold() in own for word in telling)
            words += TELLING
            chance += len(own) / len(own | foreign) / len(halves)
    return [Figure("telling words from the right half", right / words, chance, "any of its words")]


if __name__ == "__main__":
    run(main)
