"""Hybrid search against each of its legs on a real collection: nDCG@10 and time a question.

    python -m benchmarks.hybrid --cranfield FOLDER [--url URL] [--plot hybrid]

FOLDER holds cran.all.1400, cran.qry and cranqrel. all-MiniLM-L6-v2 over "title. abstract", and a tsvector column with
a GIN index. Questions are encoded before they are timed. Without --url an embedded server is started.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import Computed, Index, Select, create_engine, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from benchmarks.harness import machine, plot, take_turns
from benchmarks.search import ndcg, records
from embeddb import (
    LocalPostgres,
    SentenceTransformer,
    Vector,
    embedding_column,
    hybrid,
    install,
    nearest,
    text_leg,
    vector_leg,
)

K = 10
TARGET = 1.02


class Base(DeclarativeBase):
    """The real collection's table."""


class Abstract(Base):
    """One abstract, by words and by vector."""

    __tablename__ = "bench_hybrid"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    words: Mapped[Any] = mapped_column(
        TSVECTOR, Computed("to_tsvector('english', title || '. ' || body)", persisted=True), deferred=True
    )
    embedding: Mapped[Vector | None] = embedding_column(
        "title", "body", encoder=SentenceTransformer("all-MiniLM-L6-v2"), template="{title}. {body}"
    )


Index("ix_bench_hybrid_words", Abstract.words, postgresql_using="gin")

WAYS: dict[str, Callable[[str], Select[Any]]] = {
    "vectors": lambda question: nearest(Abstract.embedding, question),
    "words, any": lambda question: hybrid(text_leg(Abstract.words, question)),
    "words, all (websearch)": lambda question: hybrid(text_leg(Abstract.words, question, match="websearch")),
    "hybrid": lambda question: hybrid(Abstract.embedding, question, text=Abstract.words),
    "hybrid, k=10": lambda question: hybrid(Abstract.embedding, question, text=Abstract.words, k=10),
    "hybrid, words at .5": lambda question: hybrid(
        vector_leg(Abstract.embedding, question), text_leg(Abstract.words, question, 0.5)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cranfield", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--url", help="a database of your own; the table bench_hybrid is dropped in it")
    parser.add_argument("--plot", help="save the rates as PLOT.png")
    options = parser.parse_args()
    relevant: dict[int, dict[int, int]] = defaultdict(dict)
    for line in (options.cranfield / "cranqrel").read_text().splitlines():
        query, document, grade = (int(part) for part in line.split()[:3])
        relevant[query][document] = 5 - grade if grade > 0 else 0
    questions = [fields["W"] for fields in records((options.cranfield / "cran.qry").read_text())]
    with ExitStack() as stack:
        engine = create_engine(options.url or stack.enter_context(LocalPostgres()).url)
        stack.callback(engine.dispose)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        make_session = sessionmaker(engine)
        install(make_session)
        with make_session() as session:
            for fields in records((options.cranfield / "cran.all.1400").read_text()):
                session.add(Abstract(id=int(fields["I"]), title=fields["T"], body=fields["W"]))
            session.commit()
            session.execute(text("ANALYZE bench_hybrid"))

            def search(way: str) -> float:
                gains = []
                for number, question in enumerate(questions, 1):
                    found = session.scalars(WAYS[way](question).limit(K)).all()
                    possible = list(relevant[number].values())
                    gains.append(ndcg([relevant[number].get(row.id, 0) for row in found], possible))
                return float(np.mean(gains))

            scores = {way: search(way) for way in WAYS}
            Console(width=140).print({way: round(score, 4) for way, score in scores.items()})
            times = take_turns({way: lambda way=way: search(way) for way in WAYS}, options.runs)  # type: ignore[misc]
    best = max(scores["vectors"], scores["words, any"])
    table = Table("way", "nDCG@10", "/ the better leg", "ms a question, median", "range")
    for way, score in scores.items():
        each = sorted(1000 * seconds / len(questions) for seconds in times[way])
        ratio = f"{score / best:.3f}"
        table.add_row(way, f"{score:.4f}", ratio, f"{np.median(each):.1f}", f"{each[0]:.1f} – {each[-1]:.1f}")
    console = Console(width=140)
    console.print(
        f"Cranfield, {len(questions)} questions, MiniLM; hybrid is promised {TARGET} × the better leg", machine()
    )
    console.print(table)
    if options.plot:
        plot(Path(f"{options.plot}.png"), "Cranfield, questions a second", times, len(questions), "questions")


if __name__ == "__main__":
    main()
