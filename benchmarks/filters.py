"""Filtered searches: recall, rows and time against reading the matches and against an iterative scan; recall asked for.

    python -m benchmarks.filters [--rows 100000] [--runs 3] [--url URL] [--plot PREFIX]

Filters leave 100% to 0.1% of the rows, by a column that has nothing to do with the vectors, or by the cluster of the
query or of others. "exact" is nearest(exact=True); "iterative" is nearest told that there is no filter, with sorting
switched off, so that the index is scanned on until LIMIT is filled. The index is asked for a recall of .99, as it is by
default under filters; all run as prepared statements over one connection, in turns.

Then recall@10 of nearest(recall=r), fitted by embeddb recall on the rows and measured by queries that are not among
them, and searches a second by it and by pgvector.sqlalchemy. Without --url an embedded server is started.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pgvector.sqlalchemy import VECTOR as STOCK
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, Select, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.generated import CLUSTERS, DIM, Data, K, generate
from benchmarks.harness import Figure, machine, plot, report, take_turns
from embeddb import LocalPostgres, Vector, bulk_load, embedding_column, nearest
from embeddb.encoders import Hashing
from embeddb.insight.recall import keep, measure

#: What nearest looks for by default where rows are filtered.
RECALL = 0.99


class Base(DeclarativeBase):
    """Of the benchmark's own table."""


class Row(Base):
    __tablename__ = "bench_filters"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    tenth: Mapped[int] = mapped_column(index=True)
    hundredth: Mapped[int] = mapped_column(index=True)
    thousandth: Mapped[int] = mapped_column(index=True)
    cluster: Mapped[int] = mapped_column(index=True)
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(dim=DIM))


class StockBase(DeclarativeBase):
    """Of the same table, as pgvector.sqlalchemy has it."""


class Stock(StockBase):
    __tablename__ = "bench_filters"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(STOCK(DIM))


def _clusters(away: int, width: int) -> Callable[[Select[Any], int, int], Select[Any]]:
    def where(statement: Select[Any], _: int, cluster: int) -> Select[Any]:
        first = (cluster + away) % (CLUSTERS - width + 1)
        return statement.where(Row.cluster.between(first, first + width - 1))

    return where


#: Of a statement, the query's number and its cluster.
FILTERS: dict[str, Callable[[Select[Any], int, int], Select[Any]]] = {
    "100%": lambda s, n, c: s.where(Row.tenth >= 0),
    "10%": lambda s, n, c: s.where(Row.tenth == n % 10),
    "5%": lambda s, n, c: s.where(Row.tenth == n % 10, Row.hundredth < 50),
    "1%": lambda s, n, c: s.where(Row.hundredth == n % 100),
    "0.1%": lambda s, n, c: s.where(Row.thousandth == 7 * n % 1000),
    "10%, the query's clusters": _clusters(0, CLUSTERS // 10),
    "1%, the query's cluster": _clusters(0, CLUSTERS // 100),
    "10%, other clusters": _clusters(CLUSTERS // 2, CLUSTERS // 10),
    "1%, other clusters": _clusters(CLUSTERS // 2, CLUSTERS // 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--url", help="a database of your own; the table bench_filters is dropped in it")
    parser.add_argument("--plot", help="save the rates as PLOT.png")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(LocalPostgres()).url
        engine = create_engine(url, connect_args={"prepare_threshold": 0})
        stack.callback(engine.dispose)
        data = generate(options.rows)
        fill(engine, data)
        filtered(engine, data, options.runs)
        asked(engine, data, options)


def fill(engine: Engine, data: Data) -> None:
    """Load the rows, with columns to filter by."""
    rows = len(data.stored)
    shuffled = np.random.default_rng(0).permutation(rows)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        index = next(index for index in Base.metadata.tables["bench_filters"].indexes if "hnsw" in str(index.name))
        index.drop(connection)
        columns = {
            "id": np.arange(rows),
            "title": [f"title of row {number}" for number in range(rows)],
            "tenth": shuffled % 10,
            "hundredth": shuffled // 10 % 100,
            "thousandth": shuffled // 10 % 1000,
            "cluster": data.clusters[0],
            "embedding": data.stored,
        }
        bulk_load(connection, Row, columns)
        index.create(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE bench_filters"))


def filtered(engine: Engine, data: Data, runs: int) -> Table:
    """The table, printed too: each filter's recall and rows, and time against the better of two single-minded ways."""

    queries = data.queries[:50]

    def asking(query: Any, filtered: bool | None = None) -> Select[Any]:
        return nearest(Row.embedding, query, recall=RECALL, filtered=filtered).with_only_columns(Row.id)

    table = Table("filter", "recall@10", "fewest rows", "exact ms", "iterative ms", "its recall", "nearest ms", "ratio")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name, where in FILTERS.items():
            ways: dict[str, Callable[[Any], Select[Any]]] = {
                "exact": lambda query: nearest(Row.embedding, query, exact=True).with_only_columns(Row.id),
                "iterative": lambda query: asking(query, filtered=False),
                "nearest": asking,
            }
            found: dict[str, list[set[int]]] = {}
            milliseconds: dict[str, list[float]] = {way: [] for way in ways}
            for run in range(runs + 1):
                for way, build in ways.items():
                    for setting in ("enable_sort", "enable_bitmapscan", "enable_seqscan"):
                        connection.exec_driver_sql(f"SET {setting} = {'off' if way == 'iterative' else 'on'}")
                    answers, times = [], []
                    for number, (query, cluster) in enumerate(zip(queries, data.clusters[1], strict=False)):
                        statement = where(build(query), number, int(cluster)).limit(K)
                        begin = time.perf_counter()
                        answers.append(set(connection.scalars(statement)))
                        times.append(1000 * (time.perf_counter() - begin))
                    found[way] = answers
                    if run:
                        milliseconds[way] += times
            truth = found["exact"]
            recalls = {
                way: np.mean([len(a & b) / len(b) for a, b in zip(answers, truth, strict=True)])
                for way, answers in found.items()
            }
            middle = {way: statistics.median(times) for way, times in milliseconds.items()}
            fair = [middle["exact"], *([middle["iterative"]] if recalls["iterative"] >= 0.985 else [])]
            table.add_row(
                name,
                f"{recalls['nearest']:.3f}",
                str(min(len(answer) for answer in found["nearest"])),
                f"{middle['exact']:.2f}",
                f"{middle['iterative']:.2f}",
                f"{recalls['iterative']:.3f}",
                f"{middle['nearest']:.2f}",
                f"{middle['nearest'] / min(fair):.2f}",
            )
    console = Console(width=140)
    console.print(machine(), "ratio: to the better of exact and iterative, the latter where its recall is above .985")
    console.print(table)
    return table


def asked(engine: Engine, data: Data, options: argparse.Namespace) -> None:
    """Recall that is asked for and given; searches a second at .95 against pgvector.sqlalchemy."""
    with engine.connect() as connection:
        fit = measure(connection, Row.embedding)
        with connection.begin():
            keep(connection, fit)
    table = Table("asked", "ef_search", "measured recall@10")
    with Session(engine) as ours, Session(engine) as stock:

        def searched(level: float) -> list[set[int]]:
            return [
                {row.id for row in ours.scalars(nearest(Row.embedding, query, recall=level).limit(K))}
                for query in data.queries
            ]

        def statement(query: Any) -> Select[Any]:
            return select(Stock).order_by(Stock.embedding.cosine_distance(query)).limit(K)

        def searched_by_stock() -> list[set[int]]:
            return [
                {
                    row.id
                    for row in stock.scalars(select(Stock).order_by(Stock.embedding.cosine_distance(query)).limit(K))
                }
                for query in data.queries
            ]

        def recall(found: list[set[int]]) -> float:
            return float(np.mean([len(a & b) / K for a, b in zip(found, data.truth, strict=True)]))

        for level in (0.9, 0.95, 0.99):
            table.add_row(f"{level:g}", str(fit.efforts[level]), f"{recall(searched(level)):.4f}")
        for needed in (40, 64, 80, 100, 150, 200, 400):
            stock.execute(text(f"SET hnsw.ef_search = {needed:d}"))
            if recall(searched_by_stock()) >= 0.95:
                break
        table.add_row("pgvector.sqlalchemy", str(needed), f"{recall(searched_by_stock()):.4f}")
        Console(width=140).print(table)
        ways = {"nearest(recall=.95)": lambda: searched(0.95), "pgvector.sqlalchemy": searched_by_stock}
        times = take_turns(ways, options.runs + 2)
    title = f"Entities by recall@10 of .95 or more, {options.rows:,} rows × {DIM}, one connection"
    figures = [Figure("nearest / pgvector.sqlalchemy", "nearest(recall=.95)", "pgvector.sqlalchemy", 2.5)]
    report(title, times, figures, len(data.queries), "searches")
    if options.plot:
        plot(Path(f"{options.plot}.png"), title, times, len(data.queries), "searches")


if __name__ == "__main__":
    main()
