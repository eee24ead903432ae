"""Candidates built for real, on a sample in a temporary table, and measured there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, Integer, MetaData, Table, text
from sqlalchemy.exc import DBAPIError

from embeddb.encoders.settings import require
from embeddb.insight.candidates import Candidate
from embeddb.insight.recall import Fit, measure
from embeddb.insight.report import figure
from embeddb.insight.sample import Sample
from embeddb.naming import index_name
from embeddb.orm.bulk import bulk_load
from embeddb.orm.elsewhere import settings_elsewhere
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.index_expression import declared_index
from embeddb.orm.settings import Settings
from embeddb.spec import IVFFlat

#: Where the plots have their lines.
_RECALLS: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995)
_TABLE: Final = "embeddb_trial"
_ANALYZE: Final = text("ANALYZE embeddb_trial")
_SIZE: Final = text("SELECT pg_relation_size(CAST(:index AS regclass))")
_SET: Final = text("SELECT set_config(:name, :value, :local)")
_BUILDING: Final = text("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate as it was built on ``rows`` rows: ``seconds`` of building, ``size`` in bytes, and its ``fit``."""

    candidate: Candidate
    rows: int
    seconds: float
    size: int
    fit: Fit

    @property
    def recall(self) -> float:
        """Of the least effort that reached the target, or of the most there is."""
        return self.fit.recall

    @property
    def milliseconds(self) -> float:
        """A query's median at that effort, with the round trip."""
        return self.fit.milliseconds[self.fit.effort]


def try_out(
    connection: Connection,
    sample: Sample,
    candidates: Sequence[Candidate],
    *,
    target: float,
    k: int = 10,
    queries: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trial]:
    """Build each candidate over the sample in a temporary table, measure it, and drop it.

    ``connection``: in no transaction; needs the right to make temporary tables (TEMPORARY, which PUBLIC has by
    default), and touches no other. Built in one process, for temporary tables have no parallel builds, and with as
    much memory as the graph wants.
    """
    _make_room(connection, sample)
    trials = []
    for done, candidate in enumerate(candidates, 1):
        with _table(connection, sample, candidate) as (column, settings):
            name = index_name(_TABLE, column.name, candidate.index.method)
            began = time.perf_counter()
            with connection.begin():
                _build_within(connection, candidate.graph(len(sample.vectors), sample.subject.dim))
                declared_index(name, column, settings).create(connection)
            seconds = time.perf_counter() - began
            with connection.begin():
                size = int(connection.scalar(_SIZE, {"index": name}) or 0)
                connection.execute(_ANALYZE)
            fit = measure(connection, column, target=target, k=k, queries=queries, also=_efforts(candidate))
        trials.append(Trial(candidate, len(sample.vectors), seconds, size, fit))
        if progress is not None:
            progress(done, len(candidates))
    return trials


def _make_room(connection: Connection, sample: Sample) -> None:
    """Keep the temporary table and its index in memory, as the server's cache will keep the real ones."""
    wanted = 4 * sample.vectors.nbytes // 2**20 + 32
    with suppress(DBAPIError), connection.begin():  # refused in a session that has had temporary tables already
        connection.execute(_SET, {"name": "temp_buffers", "value": f"{wanted}MB", "local": False})


def _build_within(connection: Connection, graph: float) -> None:
    given = connection.scalar(_BUILDING) or 0
    if 1.1 * graph > given:
        value = f"{math.ceil(1.1 * graph / 1024)}kB"
        connection.execute(_SET, {"name": "maintenance_work_mem", "value": value, "local": True})


def _efforts(candidate: Candidate) -> Sequence[int]:
    """Low ones too, for on a sample they find what higher ones find of all rows."""
    if isinstance(candidate.index, IVFFlat) and not candidate.reranks:
        return sorted({min(round(1.5**step), candidate.index.lists) for step in range(20)})
    return (10, 14, 20, 28, 40, 64, 100, 200)


@contextmanager
def _table(connection: Connection, sample: Sample, candidate: Candidate) -> Iterator[tuple[Column[Any], Settings]]:
    subject = sample.subject
    settings = settings_elsewhere(subject.dim, subject.metric, candidate.storage, candidate.index)
    column: Column[Any] = Column("embedding", embedding_type(settings))
    table = Table(_TABLE, MetaData(), Column("id", Integer, primary_key=True), column, prefixes=["TEMPORARY"])
    with connection.begin():
        table.create(connection)
        bulk_load(connection, table, {"id": range(len(sample.vectors)), "embedding": sample.vectors})
    try:
        yield column, settings
    finally:
        with connection.begin():
            table.drop(connection)


def plot(trials: Sequence[Trial], path: Path, title: str) -> None:
    """Recall on the sample against a query's time, by effort, and against the index's size: a PNG.

    Recall by its log odds, so that .99 and .999 are apart; where nothing was missed, half a miss is drawn.
    """
    picture = figure(2, 1, "a plot")
    ticker = require("matplotlib.ticker", "insight", "a plot")
    by_time, by_size = picture.subplots(1, 2, sharey=True)
    for trial in trials:
        most = 1 - 0.5 / (trial.fit.k * trial.fit.queries)
        efforts = sorted(trial.fit.measured)
        times = [trial.fit.milliseconds[effort] for effort in efforts]
        recalls = [min(trial.fit.measured[effort], most) for effort in efforts]
        [line] = by_time.plot(times, recalls, marker=".", linewidth=1, label=trial.candidate.declaration)
        by_size.plot([trial.size / 2**20], [min(trial.recall, most)], marker="o", linestyle="", color=line.get_color())
    by_time.set(xlabel="a query's median, ms", ylabel="recall@10", xscale="log", yscale="logit", title="by effort")
    by_size.set(xlabel="index, MB", xlim=(0, None), title="at the recall that is asked")
    by_time.yaxis.set_major_locator(ticker.FixedLocator(_RECALLS))
    by_time.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    for axis in (by_time.xaxis, by_time.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(ticker.NullLocator())
    for axes in (by_time, by_size):
        axes.grid(alpha=0.3)
    picture.legend(fontsize="small", loc="outside lower center", ncols=2)
    picture.suptitle(title)
    picture.savefig(path, format="png", dpi=110)
