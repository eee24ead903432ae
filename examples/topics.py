"""What are these texts about? Groups that nobody named, each shown by the texts of its middle.

``embeddb.cluster`` is k-means inside the database, for whoever has SQL alone. The same table gives the same groups.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from common import Figure, database, engine_of, run
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import embeddb
from embeddb import Vector, embedding_column
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import Hashing, SentenceTransformer

SUBJECTS = ("astronomy", "cooking", "medicine", "music", "law", "sport")


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    topic: Mapped[str]  # only to see how pure the groups are
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=SentenceTransformer("all-MiniLM-L6-v2"))
    by_letters: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(dim=384))


#: As any client may send it: each row's group, and how far it is from the middle.
CLUSTERS = text("""
    SELECT c.cluster, d.title, d.topic
      FROM embeddb.cluster(:embedding, 6) AS c JOIN documents AS d ON d.id = c.key::bigint
     ORDER BY c.cluster, c.distance
""")


def main(url: str | None = None) -> list[Figure]:
    with database(Base, url) as sessions, sessions() as session:
        embeddb.register(engine_of(sessions), Base, install=True)
        texts = [each for each in read_corpus() if each["topic"] in SUBJECTS]
        session.add_all(Document(title=each["title"], body=each["body"], topic=each["topic"]) for each in texts)
        session.commit()
        pure = {}
        for name in ("embedding", "by_letters"):
            groups: dict[int, list[tuple[str, str]]] = defaultdict(list)
            for cluster, title, topic in session.execute(CLUSTERS, {"embedding": f"documents.{name}"}):
                groups[cluster].append((title, topic))
            if name == "embedding":
                for members in groups.values():
                    print(f"{len(members)} texts: {', '.join(title for title, _ in members[:4])}, …")
            counts = [Counter(topic for _, topic in members) for members in groups.values()]
            pure[name] = sum(count.most_common(1)[0][1] for count in counts) / len(texts)
    return [
        Figure("texts in a group of their topic", pure["embedding"], pure["by_letters"], "the same by hashed words")
    ]


if __name__ == "__main__":
    run(main)
