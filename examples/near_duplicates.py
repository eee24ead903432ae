"""Texts that say the same in nearly the same words, found as pairs and put in groups.

A checksum finds copies. Advertisements, articles and tickets come back with a word changed, a sentence moved, a typo.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable

from common import Figure, database, run
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from embeddb import Vector, duplicates, embedding_column
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import Hashing
from embeddb.query.duplicates import groups


class Base(DeclarativeBase):
    pass


class Notice(Base):
    __tablename__ = "notices"
    id: Mapped[int] = mapped_column(primary_key=True)
    origin: Mapped[int]  # which text it was made of: only to count what was found
    body: Mapped[str]
    # Words and parts of words, not meaning: two texts on one subject are no duplicates.
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(dim=512))


def edited(body: str, rng: random.Random) -> str:
    """As someone else would post it: typos, words left out, sentences in another order, other capitals."""
    words = body.split()
    for place in rng.sample(range(len(words)), 3):
        words[place] = words[place][1:] + words[place][:1]
    for _ in range(len(words) // 5):
        del words[rng.randrange(len(words))]
    sentences = " ".join(words).split(". ")
    rng.shuffle(sentences)
    return ". ".join(sentences).upper() if rng.random() < 0.2 else ". ".join(sentences)


def main(url: str | None = None) -> list[Figure]:
    rng = random.Random(0)
    notices = [Notice(origin=number, body=text["body"]) for number, text in enumerate(read_corpus())]
    for notice in rng.sample(notices, 60):
        notices += [Notice(origin=notice.origin, body=edited(notice.body, rng)) for _ in range(rng.choice((1, 2)))]
    notices += [Notice(origin=notice.origin, body=notice.body) for notice in rng.sample(notices[:200], 15)]  # exact
    rng.shuffle(notices)

    with database(Base, url) as sessions, sessions() as session:
        session.add_all(notices)
        session.commit()
        origin = {notice.id: notice.origin for notice in notices}

        other = aliased(Notice)
        found = session.execute(duplicates(Notice.embedding, other.embedding, score=0.6)).all()
        pairs = {(one.id, two.id) for one, two, _ in found}
        for one, two, distance in sorted(found, key=lambda row: -row.distance)[:2]:
            print(f"{1 - distance:.2f}  {one.body}\n      {two.body}")
        sizes = sorted(map(len, groups(pairs)), reverse=True)
        print(f"{len(pairs)} pairs in {len(sizes)} groups, the largest of {sizes[0]}")

        checksums = defaultdict(list)
        for notice in sorted(notices, key=lambda notice: notice.id):
            checksums[hashlib.sha256(notice.body.encode()).digest()].append(notice.id)
    copies = {pair for same in checksums.values() for pair in itertools.combinations(same, 2)}
    true = {pair for pair in itertools.combinations(sorted(origin), 2) if origin[pair[0]] == origin[pair[1]]}
    return [Figure("pairs, F1", f1(pairs, true), f1(copies, true), "equal checksums")]


def f1(found: Iterable[tuple[int, int]], true: set[tuple[int, int]]) -> float:
    """The harmonic mean of precision and recall."""
    found = set(found)
    return 2 * len(found & true) / (len(found) + len(true))


if __name__ == "__main__":
    run(main)
