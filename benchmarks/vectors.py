"""Given vectors in and out: bulk_load, add_all and reading, against stock pgvector.sqlalchemy and a COPY by hand.

    python benchmarks/vectors.py [--rows 20000] [--dim 384] [--runs 5] [--url URL] [--plot vectors]

Without --url an embedded server is started. Before each load the tables are emptied and a checkpoint is made.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pgvector.sqlalchemy import VECTOR as STOCK
from sqlalchemy import BigInteger, Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.harness import Figure, plot, report, take_turns
from embeddb.local import LocalPostgres
from embeddb.orm.bulk import bulk_load
from embeddb.orm.types import VECTOR

READ = 5000


class Base(DeclarativeBase):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--url", help="a database of your own; the tables bench_ours and bench_stock are dropped in it")
    parser.add_argument("--plot", help="save the rates as PLOT-loading.png and PLOT-reading.png")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(LocalPostgres(Path(folder) / "pg")).url
        engine = create_engine(url)
        stack.callback(engine.dispose)
        run(engine, options)


def run(engine: Engine, options: argparse.Namespace) -> None:
    """Load, then read, and report both."""
    ours, stock = make_models(options.dim)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        server = connection.scalar(text("SHOW server_version"))
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
    vectors = np.random.default_rng(0).normal(size=(options.rows, options.dim)).astype(np.float32)
    title = (
        f"{options.dim} dimensions, {options.runs} rounds, PostgreSQL {server}, SQLAlchemy {version('sqlalchemy')}, "
        f"psycopg {version('psycopg')}, stock pgvector.sqlalchemy {version('pgvector')}"
    )

    loads = loading(engine, ours, stock, vectors)
    times = take_turns(loads, options.runs, lambda: empty(engine))
    figures = [
        Figure("bulk_load of mappings / stock add_all", "bulk_load, mappings", "stock add_all", 25),
        Figure("bulk_load of columns / stock add_all", "bulk_load, columns", "stock add_all", 25),
        Figure("bulk_load of mappings / COPY by hand", "bulk_load, mappings", "COPY by hand", 0.8),
        Figure("bulk_load of columns / COPY by hand", "bulk_load, columns", "COPY by hand", 0.8),
        Figure("add_all / stock add_all", "add_all", "stock add_all", 3),
    ]
    report(f"loading {options.rows} rows, {title}", times, figures, options.rows, "rows")
    if options.plot:
        plot(Path(f"{options.plot}-loading.png"), f"loading {options.rows} rows, {title}", times, options.rows, "rows")

    empty(engine)
    count = min(READ, options.rows)
    for model in (ours, stock):
        bulk_load(engine, model, {"id": np.arange(count), "vector": vectors[:count]})
    times = take_turns(reading(engine, ours, stock), options.runs)
    figures = [
        Figure("rows / stock rows", "rows", "stock rows", 8),
        Figure("entities / stock entities", "entities", "stock entities"),
    ]
    report(f"reading {count} rows, {title}", times, figures, count, "rows")
    if options.plot:
        plot(Path(f"{options.plot}-reading.png"), f"reading {count} rows, {title}", times, count, "rows")


def make_models(dim: int) -> tuple[type[Any], type[Any]]:
    """The same table twice: with our type, and with the stock one."""

    class Ours(Base):
        __tablename__ = "bench_ours"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        vector: Mapped[Any] = mapped_column(VECTOR(dim))

    class Stock(Base):
        __tablename__ = "bench_stock"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        vector: Mapped[Any] = mapped_column(STOCK(dim))

    return Ours, Stock


def empty(engine: Engine) -> None:
    """No rows, and nothing left to write for the server."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("TRUNCATE bench_ours, bench_stock"))
        connection.execute(text("CHECKPOINT"))


def loading(engine: Engine, ours: Any, stock: Any, vectors: Any) -> dict[str, Callable[[], object]]:
    """Ways to load the same rows, commit included."""
    mappings = [{"id": number, "vector": vector} for number, vector in enumerate(vectors)]

    def add_all(model: Any) -> None:
        with Session(engine) as session:
            session.add_all([model(**row) for row in mappings])
            session.commit()

    def by_hand() -> None:
        count, dim = vectors.shape
        fields = [("n", ">i2"), ("a", ">i4"), ("id", ">i8"), ("b", ">i4"), ("dim", ">i2"), ("zero", ">i2")]
        rows = np.zeros(count, [*fields, ("vector", ">f4", (dim,))])
        rows["n"], rows["a"], rows["b"], rows["dim"] = 2, 8, 4 + 4 * dim, dim
        rows["id"], rows["vector"] = np.arange(count), vectors
        with engine.begin() as connection:
            cursor = connection.connection.cursor()
            with cursor.copy("COPY bench_ours (id, vector) FROM STDIN (FORMAT binary)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                copy.write(rows.tobytes())
                copy.write(b"\xff\xff")

    return {
        "stock add_all": lambda: add_all(stock),
        "add_all": lambda: add_all(ours),
        "bulk_load, mappings": lambda: bulk_load(engine, ours, mappings),
        "bulk_load, columns": lambda: bulk_load(engine, ours, {"id": np.arange(len(vectors)), "vector": vectors}),
        "COPY by hand": by_hand,
    }


def reading(engine: Engine, ours: Any, stock: Any) -> dict[str, Callable[[], object]]:
    """Ways to read every row with its vector."""

    def rows(model: Any) -> None:
        with engine.connect() as connection:
            connection.execute(select(model.id, model.vector)).all()

    def entities(model: Any) -> None:
        with Session(engine) as session:
            session.scalars(select(model)).all()

    return {
        "stock rows": lambda: rows(stock),
        "rows": lambda: rows(ours),
        "stock entities": lambda: entities(stock),
        "entities": lambda: entities(ours),
    }


if __name__ == "__main__":
    main()
