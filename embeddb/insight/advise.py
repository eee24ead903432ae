"""``advise``: which storage and index an embedding should have, weighed by its rows, memory, writes and recall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import Connection, text

from embeddb.errors import QueryError
from embeddb.insight.candidates import Candidate, candidates, grown, lists_for
from embeddb.insight.reductions import Reduction, reductions
from embeddb.insight.sample import Sample, Subject, draw, subject_of
from embeddb.insight.trial import Trial, try_out
from embeddb.orm.effort import LEVELS, UNFITTED
from embeddb.query.embedding import AnyEmbedding
from embeddb.spec import HNSW, IVFFlat

#: An exact scan of so many rows takes some milliseconds.
EXACT: Final = 15_000
#: Rows that the calibration builds its two indexes of.
CALIBRATION: Final = 2000
#: The share of the memory for caching that one index may take.
SHARE: Final = 0.25
#: Above this share of its rows written since the statistics began, a table is a busy one.
BUSY: Final = 0.1

_SERVER: Final = text(
    "SELECT pg_size_bytes(current_setting('effective_cache_size')) AS cache, "
    "pg_size_bytes(current_setting('maintenance_work_mem')) AS building, "
    "(SELECT n_tup_upd + n_tup_del FROM pg_stat_all_tables WHERE relid = CAST(:table AS regclass)) AS writes"
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of a candidate over all rows: bytes, seconds of building, recall at the usual effort.

    ``trial``: what it was on the sample, where it was tried.
    """

    candidate: Candidate
    column: float
    index: float
    seconds: float
    recall: float
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """``chosen``: the candidate to declare, None for no index. ``reasons``: why, in words, and what to mind."""

    subject: Subject
    rows: int
    target: float
    predictions: tuple[Prediction, ...]
    chosen: Candidate | None
    reasons: tuple[str, ...]

    @property
    def declaration(self) -> str:
        """What ``embedding_column`` should be given."""
        return "index=None" if self.chosen is None else self.chosen.declaration


@dataclass(frozen=True, slots=True)
class Server:
    """What it gives: bytes to cache, bytes to build with, and the share of the rows that were written over."""

    cache: int
    building: int
    written: float


def advise(
    connection: Connection,
    embedding: str | AnyEmbedding,
    *,
    recall: float = 0.95,
    rows: int | None = None,
    sample: int = 5000,
    queries: int = 100,
    trials: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Weigh what pgvector can build for an embedding, and propose the one to declare for that ``recall``.

    ``rows``: to plan for, by default those that are there. ``trials``: build every candidate over the sample, in a
    temporary table, instead of two for calibration. ``connection``: in no transaction; the sample is read from the
    table, nothing of it is written.

    Predicted are the size by the layout of pages (``sizes``), the seconds by ``Candidate.work`` in units of the
    calibration, and the recall@10 at the effort that is used unfitted: what the calibration's graph found, with misses
    growing as the logarithm of the rows, times what is left of the sample's neighbours in the storage. Estimates of a
    sample: after building, ``embeddb recall`` measures.
    """
    if not 0 < recall <= LEVELS[-1]:
        raise QueryError(f"a recall is above 0 and at most {LEVELS[-1]}, not {recall!r}")
    try:
        subject = subject_of(connection, embedding)
        drawn = draw(connection, subject, sample, seed=seed)
        planned = rows or drawn.rows
        server = _server(connection, subject, drawn.rows)
    finally:
        connection.rollback()
    if len(drawn.vectors) < 50:
        raise QueryError(f"{subject.name} has {len(drawn.vectors)} rows with a vector, too few to tell anything by")
    found = candidates(subject, planned)
    on = drawn if trials else _head(drawn, CALIBRATION)
    meant = found if trials else _calibration(found)
    built = [one.scaled(len(on.vectors) / planned) for one in meant]
    measured = try_out(connection, on, built, target=recall, queries=queries, progress=progress)
    tried = dict(zip(meant, measured, strict=True))
    asked = np.random.default_rng(seed).permutation(len(drawn.vectors))[:queries]
    kept = _kept(reductions(drawn.vectors, asked, 10, subject.metric, (max(1, subject.dim // 2),)), subject)
    predictions = tuple(_predict(one, subject, planned, tried, kept, 10 * queries, trials) for one in found)
    chosen = choose(predictions, planned, recall, server)
    reasons = tuple(_reasons(subject, predictions, chosen, planned, recall, server))
    return Advice(subject, planned, recall, predictions, chosen.candidate if chosen else None, reasons)


def _server(connection: Connection, subject: Subject, rows: int) -> Server:
    quoted = connection.dialect.identifier_preparer.format_table(subject.table)
    found = connection.execute(_SERVER, {"table": quoted}).one()
    return Server(found.cache, found.building, (found.writes or 0) / max(rows, 1))


def _head(sample: Sample, rows: int) -> Sample:
    return Sample(sample.subject, sample.rows, sample.vectors[:rows], sample.values[:rows])


def _calibration(found: Sequence[Candidate]) -> Sequence[Candidate]:
    """The plainest index of each method, of those that can be built."""
    plain = [one for one in found if one.index == HNSW() or isinstance(one.index, IVFFlat)]
    return plain or found[:1]


def _kept(found: Sequence[Reduction], subject: Subject) -> Mapping[str, float]:
    """Recall of what an index holds, at its best: by Candidate's storage, cast and prefix."""
    recall = {item.kind: item.recall for item in found}
    return {
        "vector": 1.0,
        "halfvec": recall["halfvec"] if subject.storage == "vector" else 1.0,
        "binary": recall["binary+rerank"],
        "prefix": recall["prefix"],
    }


def _predict(
    candidate: Candidate,
    subject: Subject,
    rows: int,
    tried: Mapping[Candidate, Trial],
    kept: Mapping[str, float],
    asked: int,
    trials: bool,
) -> Prediction:
    trial = tried.get(candidate) if trials else None
    basis = tried.get(candidate) or next(
        (one for one in tried.values() if one.candidate.index.method == candidate.index.method),
        next(iter(tried.values())),
    )
    held = candidate.index.cast or ("prefix" if candidate.index.prefix else candidate.storage)
    usual, each, per_root, _ = UNFITTED[None]
    effort = max(usual, 10 * each) if isinstance(candidate.index, HNSW) else round(per_root * lists_for(rows) ** 0.5)
    if trial is not None:
        reached = grown(trial.recall, trial.rows, rows, asked)
    else:
        reached = grown(basis.recall_at(effort), basis.rows, rows, asked) * kept[held]
    pace = basis.seconds / basis.candidate.work(basis.rows, subject.dim)
    return Prediction(
        candidate,
        candidate.column(rows, subject.dim),
        candidate.size(rows, subject.dim),
        pace * candidate.work(rows, subject.dim),
        reached,
        trial,
    )


def choose(predictions: Sequence[Prediction], rows: int, recall: float, server: Server) -> Prediction | None:
    """The smallest that reaches the recall: of all, where the plain index would crowd the cache, else of plain ones.

    Plain are those that hold the vectors, whole or in half precision: they need no second ranking. IVFFlat only where
    rows are not written over, for its lists do not follow them. None, no index, for few rows.
    """
    if rows < EXACT:
        return None
    usable = [
        one for one in predictions if isinstance(one.candidate.index, HNSW) or server.written < BUSY
    ] or predictions
    good = [one for one in usable if one.recall >= recall]
    if not good:
        return max(usable, key=lambda one: one.recall)
    graphs = [one for one in good if isinstance(one.candidate.index, HNSW)] or good
    plain = [one for one in graphs if not one.candidate.reranks]
    fitting = [one for one in plain if one.index <= SHARE * server.cache]
    return min(fitting or good, key=lambda one: (one.index + one.column, one.seconds))


def _reasons(
    subject: Subject,
    predictions: Sequence[Prediction],
    chosen: Prediction | None,
    rows: int,
    recall: float,
    server: Server,
) -> list[str]:
    if chosen is None:
        return [
            f"{rows:,} rows are read in some milliseconds: an exact scan finds all, and nothing is to be maintained."
        ]
    said = []
    if chosen.recall < recall:
        said.append(
            f"No candidate is expected to reach {recall:g} at the usual effort; this one comes nearest. A search can "
            "ask for more effort: nearest(…, recall=…), after embeddb recall."
        )
    said.append(
        f"{chosen.candidate.declaration}: {chosen.index / 1e6:,.0f} MB of index, built in about "
        f"{_time(chosen.seconds)}, expected recall {chosen.recall:.3f}."
    )
    if chosen.candidate.storage != subject.storage:
        said.append(
            "A halfvec column rounds what is stored, for good, to three digits. To keep the vectors as they are, "
            'declare HNSW(cast="halfvec") instead: the index is the same, the column stays.'
        )
    largest = max(predictions, key=lambda one: one.index)
    if chosen.index < 0.7 * largest.index:
        said.append(
            f"The largest candidate would take {largest.index / 1e6:,.0f} MB ({largest.candidate.declaration})."
        )
    if chosen.index > SHARE * server.cache:
        parts = int(np.ceil(chosen.index / (SHARE * server.cache)))
        said.append(
            f"The index is more than a quarter of effective_cache_size ({server.cache / 1e6:,.0f} MB): give the server "
            f"more memory, or partition the table into {parts} or more parts by a column that searches filter on."
        )
    if isinstance(chosen.candidate.index, HNSW) and chosen.index > server.building:
        said.append(
            f"Build it with maintenance_work_mem of {1.1 * chosen.index / 1e6:,.0f} MB or more: a graph that does not "
            "fit is built at about half the speed."
        )
    if server.written >= BUSY:
        said.append(
            f"{server.written:.0%} of the rows were changed or deleted since the statistics began: IVFFlat is left "
            "out, for its lists stay as they were, and HNSW wants a REINDEX CONCURRENTLY now and then."
        )
    return said


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
