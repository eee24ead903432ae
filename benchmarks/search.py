"""Searching by text: the client's share of a query, recall, and retrieval quality on a real collection.

    python -m benchmarks.search [--rows 20000] [--dim 384] [--runs 9] [--url URL] [--plot search] [--cranfield FOLDER]

A query's text is encoded already, as a popular one is: what is left is building the statement, the round trip and the
entities. Without --url an embedded server is started. Recall is against exact search, over every metric and storage.
--cranfield: the folder with cran.all.1400, cran.qry and cranqrel; adds nDCG@10 through the ORM by all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from pgvector.sqlalchemy import VECTOR as STOCK
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from benchmarks.harness import Figure, plot, report, take_turns
from embeddb import HNSW, LocalPostgres, SentenceTransformer, bulk_load, embedding_column, install, nearest
from embeddb.encoders import Vectors

QUERIES = 200
K = 10
RAW, OURS, STOCK_ORM = "psycopg, binary, prepared", "nearest, entities", "stock, entities"


class Given:
    """An encoder that looks its vectors up, so that what is measured is everything but the encoder."""

    modality = "text"
    fingerprint = "given"
    config = {"type": "given"}

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors
        self.dim = vectors.shape[1]

    def encode_documents(self, inputs: Any) -> Vectors:
        return self.vectors[[int(number) for number in inputs]]

    encode_queries = encode_documents


def clustered(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in clusters, as embeddings of real texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, dim))
    vectors = centres[rng.integers(200, size=rows)] + 0.7 * rng.normal(size=(rows, dim))
    found: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--url", help="a database of your own; tables that begin with bench_ are dropped in it")
    parser.add_argument("--plot", help="save the rates as PLOT.png")
    parser.add_argument("--cranfield", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(LocalPostgres()).url
        engine = create_engine(url)
        stack.callback(engine.dispose)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        measure(engine, options)
        if options.cranfield:
            retrieve(engine, options.cranfield)


def measure(engine: Engine, options: argparse.Namespace) -> None:
    """Latency against raw psycopg and the stock library, then recall."""
    vectors = clustered(options.rows + QUERIES, options.dim)
    stored, queries = vectors[: options.rows], vectors[options.rows :]
    encoder: Any = Given(queries)

    class Base(DeclarativeBase):
        pass

    models: dict[str, Any] = {}
    for metric in ("cosine", "l2", "inner_product"):
        for storage in ("vector", "halfvec"):
            name = f"bench_{metric}_{storage}"
            attributes = {
                "__tablename__": name,
                "__annotations__": {"id": Mapped[int], "title": Mapped[str]},
                "id": mapped_column(primary_key=True),
                "title": mapped_column(),
                "embedding": embedding_column("title", encoder=encoder, metric=metric, storage=storage, index=HNSW()),
            }
            models[name] = type(name, (Base,), attributes)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    titles = [f"title of row {n}" for n in range(options.rows)]
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        for model in models.values():
            (index,) = model.__table__.indexes
            index.drop(connection)
            bulk_load(connection, model, {"id": np.arange(options.rows), "title": titles, "embedding": stored})
            index.create(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    latency(engine, models["bench_cosine_vector"], queries, options)
    recall(engine, models, stored, queries)


def latency(engine: Engine, model: Any, queries: NDArray[np.float32], options: argparse.Namespace) -> None:
    """Time a round of queries each way."""

    class StockBase(DeclarativeBase):
        pass

    class Stock(StockBase):
        __tablename__ = "bench_cosine_vector"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[Any] = mapped_column(STOCK(options.dim))

    dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as raw, Session(engine) as ours, Session(engine) as stock:
        register_vector(raw)
        raw.prepare_threshold = 0
        for each in (raw, ours.connection().connection.cursor(), stock.connection().connection.cursor()):
            each.execute("SET hnsw.ef_search = 64")
        statement = "SELECT id, title FROM bench_cosine_vector ORDER BY embedding <=> %b LIMIT 10"

        def raw_psycopg() -> None:
            for query in queries:
                with raw.cursor(binary=True) as cursor:
                    cursor.execute(statement, (query,)).fetchall()

        def nearest_orm() -> None:
            for number in range(QUERIES):
                ours.scalars(nearest(model.embedding, str(number)).limit(K)).all()

        def stock_orm() -> None:
            for query in queries:
                stock.scalars(select(Stock).order_by(Stock.embedding.cosine_distance(query)).limit(K)).all()

        work = {
            "psycopg, binary, prepared": raw_psycopg,
            "nearest, entities": nearest_orm,
            "stock, entities": stock_orm,
        }
        times = take_turns(work, options.runs)
    server = f"{options.rows:,} rows × {options.dim}, HNSW, k = {K}, ef_search 64"
    figures = [
        Figure(
            "raw psycopg / nearest (promised: its time at most 1.6 ×)",
            "nearest, entities",
            "psycopg, binary, prepared",
            1 / 1.6,
        ),
        Figure("stock / nearest (promised: our time at most 0.55 ×)", "nearest, entities", "stock, entities", 1 / 0.55),
    ]
    report(f"Searching, {server}", times, figures, QUERIES, "queries")
    if options.plot:
        plot(Path(f"{options.plot}.png"), f"Searching, {server}", times, QUERIES, "queries")


def recall(engine: Engine, models: dict[str, Any], stored: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    """recall@10 of nearest against exact search by numpy."""
    table = Table("table", "recall@10 (promised: 0.98)")
    with Session(engine) as session:
        for name, model in models.items():
            hits = 0
            for number, query in enumerate(queries):
                found = session.scalars(nearest(model.embedding, str(number)).limit(K)).all()
                # Of unit vectors every metric gives the same order.
                expected = np.argpartition(-(stored @ query), K)[:K]
                hits += len({row.id for row in found} & set(expected.tolist()))
            table.add_row(name.removeprefix("bench_"), f"{hits / (K * len(queries)):.4f}")
    Console(width=140).print(table)


class CranfieldBase(DeclarativeBase):
    """The real collection's table."""


class Abstract(CranfieldBase):
    __tablename__ = "bench_cranfield"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    embedding: Mapped[Any] = embedding_column(
        "title", "body", encoder=SentenceTransformer("all-MiniLM-L6-v2"), template="{title}. {body}"
    )


def retrieve(engine: Engine, folder: Path) -> None:
    """nDCG@10 with gains 5 - grade, through the ORM's hooks and nearest."""
    CranfieldBase.metadata.drop_all(engine)
    CranfieldBase.metadata.create_all(engine)
    make_session = sessionmaker(engine)
    install(make_session)
    relevant: dict[int, dict[int, int]] = defaultdict(dict)
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, grade = (int(part) for part in line.split()[:3])
        relevant[query][document] = 5 - grade if grade > 0 else 0
    with make_session() as session:
        for fields in records((folder / "cran.all.1400").read_text()):
            session.add(Abstract(id=int(fields["I"]), title=fields["T"], body=fields["W"]))
        session.commit()
        scores = []
        for number, fields in enumerate(records((folder / "cran.qry").read_text()), 1):
            found = session.scalars(nearest(Abstract.embedding, fields["W"]).limit(K)).all()
            scores.append(ndcg([relevant[number].get(row.id, 0) for row in found], list(relevant[number].values())))
    Console(width=140).print(
        f"Cranfield, MiniLM, cosine, {len(scores)} questions: nDCG@10 {np.mean(scores):.4f} (promised: 0.50)"
    )


def records(source: str) -> list[dict[str, str]]:
    """The records of a file in SMART's format, each a dictionary by field letter."""
    found = []
    for record in re.split(r"^\.I ", source, flags=re.MULTILINE)[1:]:
        number, _, rest = record.partition("\n")
        parts = re.split(r"^\.([A-Z])\n", rest, flags=re.MULTILINE)[1:]
        fields = {letter: " ".join(value.split()) for letter, value in zip(parts[::2], parts[1::2], strict=True)}
        found.append({**fields, "I": number.strip()})
    return found


def sentences(folder: Path) -> NDArray[np.float32]:
    """all-MiniLM-L6-v2's vectors of the sentences of Cranfield's abstracts, each once, in random order."""
    bodies = (fields["W"] for fields in records((folder / "cran.all.1400").read_text()))
    found = {sentence for body in bodies for sentence in body.split(" . ") if len(sentence.split()) > 4}
    shuffled = np.random.default_rng(0).permutation(sorted(found)).tolist()
    return SentenceTransformer("all-MiniLM-L6-v2").encode_documents(shuffled)


def ndcg(gains: list[int], possible: list[int]) -> float:
    """Normalised discounted cumulative gain at 10 (Järvelin and Kekäläinen 2002)."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    ideal = sorted(possible, reverse=True)[:K]
    best = float(np.dot(ideal, discounts[: len(ideal)]))
    return float(np.dot(gains, discounts[: len(gains)])) / best if best else 0.0


if __name__ == "__main__":
    main()
