"""What ``embeddb advise`` predicts of each candidate from a sample, beside the index that is really built.

Clusters like those of a language model's vectors, and a normal distribution of 32 dimensions, which is a hard case.
Run as ``python -m benchmarks.advice``; ``--rows 250000`` carries farther.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table as Shown
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, func, select, text

from benchmarks.generated import Array, generate
from benchmarks.harness import machine, server
from embeddb import advise, bulk_load
from embeddb.insight.advise import Advice
from embeddb.insight.candidates import Candidate
from embeddb.insight.choice import Prediction
from embeddb.insight.recall import measure
from embeddb.naming import index_name
from embeddb.orm.effort import UNFITTED, level_of, probes
from embeddb.orm.elsewhere import settings_elsewhere
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.index_expression import declared_index
from embeddb.orm.types import VECTOR
from embeddb.spec import IVFFlat

LEVEL = 0.95


def normal(rows: int, inner: int = 32, dim: int = 128) -> Array:
    """Normally distributed in ``inner`` dimensions of ``dim``, and a little in all."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(dim, dim)))[0][:inner]
    made = random.normal(size=(rows, inner)) @ axes + 0.02 * random.normal(size=(rows, dim))
    return np.asarray(made, np.float32)


def built(connection: Connection, found: Advice) -> Iterator[tuple[Prediction, float, int, float]]:
    """Each candidate's prediction, and the seconds, bytes and recall of the real one."""
    for one in track(found.predictions, description=found.subject.name):
        candidate, dim = one.candidate, found.subject.dim
        if candidate.storage != found.subject.storage:
            continue  # the same index, of another column
        settings = settings_elsewhere(dim, found.subject.metric, candidate.storage, candidate.index)
        column: Column[Any] = Column("embedding", embedding_type(settings))
        Table(found.subject.table.name, MetaData(), Column("id", Integer, primary_key=True), column)
        name = index_name(found.subject.table.name, "embedding", candidate.index.method)
        with connection.begin():
            connection.execute(
                select(func.set_config("maintenance_work_mem", f"{one.building / 1024:.0f}kB", text("true")))
            )
            began = time.perf_counter()
            declared_index(name, column, settings).create(connection)
            seconds = time.perf_counter() - began
        effort = _effort(candidate)
        fit = measure(connection, column, queries=100, also=[effort])
        with connection.begin():
            size = connection.scalar(select(func.pg_relation_size(name)))
            connection.execute(text(f"DROP INDEX {name}"))
        yield one, seconds, int(size or 0), fit.measured[effort]


def _effort(candidate: Candidate) -> int:
    least, each, roots, candidates = UNFITTED[level_of(LEVEL)]
    if candidate.reranks:
        return max(100, 10 * candidates)
    return probes(candidate.index, roots) if isinstance(candidate.index, IVFFlat) else max(least, 10 * each)


def main(
    rows: Annotated[int, typer.Option(help="Of each table.")] = 60_000,
    sample: Annotated[int, typer.Option(help="Rows that advice sees.")] = 5000,
) -> None:
    """Print predicted over measured, by candidate."""
    console = Console(width=120)
    console.print(machine())
    with server() as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        for name, vectors in (("clusters", generate(rows).stored), ("normal", normal(rows))):
            kind = VECTOR(vectors.shape[1])
            table = Table(name, MetaData(), Column("id", Integer, primary_key=True), Column("embedding", kind))
            with engine.begin() as connection:
                table.create(connection)
                bulk_load(connection, table, {"id": np.arange(len(vectors)), "embedding": vectors})
            with engine.connect() as connection:
                connection.execute(text(f"ANALYZE {name}"))
                connection.commit()
                found = advise(connection, f"{name}.embedding", recall=LEVEL, sample=sample)
                shown = Shown(
                    f"{name}, {found.rows:,} rows", "MB", "/ built", "s", "/ built", "recall", "measured", box=None
                )
                for one, seconds, size, recall in built(connection, found):
                    shown.add_row(
                        one.candidate.declaration.replace("[", r"\["),
                        f"{one.index / 2**20:,.0f}",
                        f"{one.index / size:.2f}",
                        f"{one.seconds:.1f}",
                        f"{one.seconds / seconds:.2f}",
                        f"{one.recall:.3f}",
                        f"{recall:.3f}",
                    )
                console.print(shown)
        engine.dispose()


if __name__ == "__main__":
    typer.run(main)
