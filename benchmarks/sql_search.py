"""Searching in SQL by a remembered text, against the same statement with the vector as a parameter.

    python -m benchmarks.sql_search [--rows 20000] [--dim 384] [--runs 9] [--url URL] [--plot sql_search]

What is promised is a difference: a text costs at most 0.5 ms more than its vector. Without --url an embedded server is
started. Every way is run as the client library has it by default, and prepared; all read the same ten rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.harness import machine, plot, take_turns
from benchmarks.search import clustered
from embeddb import HNSW, LocalPostgres, Vector, bulk_load, embedding_column
from embeddb.catalog.install import install
from embeddb.catalog.register import register
from embeddb.encoders import Hashing

QUERIES = 200
K = 10
PARAMETER = "the vector as a parameter"
WAYS: Mapping[str, str] = {
    PARAMETER: (
        "SELECT id, distance, 1 - distance FROM (SELECT id, embedding <=> (SELECT %s::vector"
        " WHERE set_config('hnsw.ef_search', '64', true) IS NOT NULL"
        " AND set_config('hnsw.iterative_scan', 'strict_order', true) IS NOT NULL"
        " AND set_config('hnsw.max_scan_tuples', '2147483647', true) IS NOT NULL) AS distance"
        " FROM bench_sql ORDER BY distance LIMIT 10) AS s"
    ),
    "bench_sql_search": "SELECT id, distance, score FROM bench_sql_search(%s, 10)",
    "ORDER BY embeddb.embed": (
        "SELECT id FROM bench_sql ORDER BY embedding <=> embeddb.embed('bench_sql.embedding', %s) LIMIT 10"
    ),
    "embeddb.search": "SELECT key, distance, score FROM embeddb.search('bench_sql.embedding', %s, 10)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--url")
    parser.add_argument("--plot")
    options = parser.parse_args()
    with ExitStack() as stack:
        engine = create_engine(options.url or stack.enter_context(LocalPostgres(version=18)).url)
        stack.callback(engine.dispose)
        vectors = fill(engine, options.rows, options.dim)
        for prepared in (False, True):
            times = measure(engine, vectors, prepared, options.runs)
            title = f"{options.rows:,} rows × {options.dim}, HNSW, k = {K}, {'' if prepared else 'not '}prepared"
            differences(title, times)
            if options.plot:
                path = Path(f"{options.plot}-{'prepared' if prepared else 'unprepared'}.png")
                plot(path, f"Searching in SQL, {title}", times, QUERIES, "queries")


def fill(engine: Engine, rows: int, dim: int) -> list[str]:
    """Make the table and its functions, and remember every query; their vectors as text."""

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "bench_sql"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(dim), index=HNSW())

    vectors = clustered(rows + QUERIES, dim)
    queries = [json.dumps(vector.tolist()) for vector in vectors[rows:]]
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        install(connection)
        Base.metadata.create_all(connection)
        titles = [f"title of row {number}" for number in range(rows)]
        bulk_load(connection, Row, {"id": np.arange(rows), "title": titles, "embedding": vectors[:rows]})
        register(connection, Base)
        for number, query in enumerate(queries):
            connection.execute(
                text("SELECT embeddb.remember('bench_sql.embedding', :text, :vector)"),
                {"text": f"query {number}", "vector": query},
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return queries


def measure(engine: Engine, vectors: Sequence[str], prepared: bool, runs: int) -> dict[str, list[float]]:
    """Seconds of a round of queries each way."""
    dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:

        def way(statement: Any, values: Sequence[str]) -> Callable[[], None]:
            def run() -> None:
                for value in values:
                    connection.execute(statement, [value], prepare=prepared).fetchall()

            return run

        texts = [f"query {number}" for number in range(QUERIES)]
        work = {name: way(statement, vectors if name == PARAMETER else texts) for name, statement in WAYS.items()}
        return take_turns(work, runs)


def differences(title: str, times: Mapping[str, Sequence[float]]) -> None:
    """Print milliseconds a query, and what a text costs more in the same round."""
    table = Table("way", "ms a query, median", "more than by parameter, median", "range", "at most")
    for name, seconds in times.items():
        more = [(each - base) / QUERIES * 1e3 for each, base in zip(seconds, times[PARAMETER], strict=True)]
        table.add_row(
            name,
            f"{statistics.median(seconds) / QUERIES * 1e3:.3f}",
            f"{statistics.median(more):+.3f}",
            f"{min(more):+.3f} – {max(more):+.3f}",
            "+0.5" if name == "bench_sql_search" else "",
        )
    console = Console(width=140)
    console.print(title, machine(), sep="\n")
    console.print(table)


if __name__ == "__main__":
    main()
