"""What a sample tells of candidates over all rows: their recall, and how long they take to build."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from sqlalchemy import Connection

from embeddb.insight.building import workers_for
from embeddb.insight.candidates import Candidate
from embeddb.insight.curve import Curve, growth_of
from embeddb.insight.reductions import ranks, reductions, signs
from embeddb.insight.sample import Sample, Subject
from embeddb.insight.server import Server
from embeddb.insight.sizes import column_bytes
from embeddb.insight.statistics import Places, neighbours, two_nn
from embeddb.insight.trial import Trial, try_out
from embeddb.orm.effort import UNFITTED, candidates
from embeddb.spec import HNSW, IVFFlat, VectorIndex

How = Literal["tried", "calibrated", "timed", "typical"]

#: Rows that tell something of recall and time; of fewer, too little is carried over to many.
LEAST: Final = 500
#: Rows whose neighbours the intrinsic dimension is taken from.
_INTRINSIC: Final = 5000
#: A unit of work by the time of an exact scan's row, less what a scan does besides; and where nothing could be timed.
_OF_A_SCAN: Final = 0.5
_SECONDS: Final = 0.3e-6
#: What a worker adds to a build, of what the first process does; and a row that the graph's memory has no room for.
_WORKER: Final = 0.5
_OUTSIDE: Final = 2.6
#: Recall at k = 10 of IVFFlat by default, and misses of the deep graph for one of the plain, where none was built.
_LISTS: Final = 0.98
_DEEP: Final = 0.4


@dataclass(frozen=True, slots=True)
class Calibration:
    """``trials``: what was built, by the candidate that it stands for. ``ranks``: of indexes that hold less.

    ``how``: "tried" is every candidate, "calibrated" some, "timed" a scan alone, "typical" nothing of this table.
    ``rows``: of the sample. ``half``: recall that is left in half precision. ``unit``: seconds, where none was built.
    ``scan``: seconds of an exact search by row.
    """

    subject: Subject
    how: How
    rows: int
    intrinsic: float
    half: float
    ranks: Mapping[Candidate, Curve]
    trials: Mapping[Candidate, Trial]
    unit: float
    scan: float

    def recall(self, candidate: Candidate, rows: float, level: float | None) -> float:
        """The recall@10 to expect of searches that ask for that ``level``, before anything is fitted."""
        least, each, roots, _ = UNFITTED[level]
        if candidate.reranks:
            effort: float = max(100, 10 * candidates(candidate.index, self.subject.dim, level))
            own = self.trials.get(candidate)
            if own is not None:
                growth = self.ranks[candidate].growth if candidate in self.ranks else growth_of(self.intrinsic)
                return _curve(own, growth).at(effort, rows)
            found = self.ranks[candidate].at(effort, rows) if candidate in self.ranks else _LISTS
            return found * self._graph(HNSW(), effort, rows)
        if isinstance(candidate.index, IVFFlat):
            lists = candidate.index.lists
            probes = min(lists, math.ceil(roots * math.sqrt(lists)))
            return self._lists(candidate, probes / lists)
        effort = max(least, 10 * each)
        own = self.trials.get(candidate)
        if own is not None:
            return _curve(own, growth_of(self.intrinsic)).at(effort, rows)
        return self._graph(candidate.index, effort, rows) * (self.half if candidate.halves(self.subject) else 1.0)

    def _graph(self, index: HNSW, effort: float, rows: float) -> float:
        """Of a graph over the vectors themselves, by the one that was built with the most similar settings."""
        built = {one: trial for one, trial in self.trials.items() if isinstance(one.index, HNSW) and not one.reranks}
        if built:
            nearest = min(built, key=lambda one: _unlike(one.index, index))
            return _curve(built[nearest], growth_of(self.intrinsic)).at(effort, rows)
        misses = 1 - typical(self.intrinsic).at(effort, rows)
        return 1 - misses * (_DEEP if index.m > HNSW().m else 1.0)

    def _lists(self, candidate: Candidate, share: float) -> float:
        """Searching that share of the lists, as the sample has it: where there are more rows, neighbours are nearer."""
        own = self.trials.get(candidate)
        near = own or next((trial for one, trial in self.trials.items() if isinstance(one.index, IVFFlat)), None)
        if near is None or not isinstance(near.candidate.index, IVFFlat):
            return _LISTS
        return _curve(near, 0.0).at(max(1.0, share * near.candidate.index.lists), near.rows)

    def seconds(self, candidate: Candidate, rows: float, server: Server, building: float) -> float:
        """Of a build, with ``building`` bytes of maintenance_work_mem and as many workers as Postgres then starts."""
        own, method = self.trials.get(candidate), candidate.index.method
        built = [own] if own else [one for one in self.trials.values() if one.candidate.index.method == method]
        paces = [trial.seconds / trial.candidate.work(trial.rows, self.subject.dim) for trial in built]
        alone = (float(np.median(paces)) if paces else self.unit) * candidate.work(rows, self.subject.dim)
        graph = candidate.graph(rows, self.subject.dim)
        if not graph:
            return alone
        outside = max(0.0, 1 - building / graph)
        workers = workers_for(candidate, rows, self.subject.dim, server, building)
        return alone / (1 + _WORKER * workers) * (1 + _OUTSIDE * outside)


def typical(intrinsic: float) -> Curve:
    """A graph's recall over 5,000 rows of that intrinsic dimension, where nothing was built.

    Up to 20 dimensions that of normally distributed ones; language models' vectors, of 25 and more, are easier.
    """
    missed = min(0.9, 0.0016 * math.exp(0.2 * (20.0 if math.isnan(intrinsic) else min(intrinsic, 20.0))))
    recalls = {effort: 1 - missed * (effort / 10) ** -1.7 for effort in (10, 1000)}
    return Curve(5000, 1_000_000, recalls, growth_of(intrinsic))


def calibrate(
    connection: Connection,
    subject: Subject,
    sample: Sample | None,
    found: Sequence[Candidate],
    server: Server,
    timed: float | None,
    *,
    target: float,
    queries: int,
    trials: bool,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Calibration:
    """Build what can be built of the sample, and look at the rest.

    ``sample``: None where there are too few rows. ``timed``: seconds of an exact search by row, None for no rows.
    """
    bytes_of = column_bytes(subject.dim, subject.storage)
    if timed is None:
        scan = 0.7e-6 * bytes_of / 1536 * (1 if bytes_of < 2000 else 3)
        unit = _SECONDS
    else:
        scan = timed
        unit = _OF_A_SCAN * timed / (0.5 + 0.5 * bytes_of / 1536)
    how: How = "typical" if timed is None else "timed"
    if sample is None:
        return Calibration(subject, how, 0, math.nan, 1.0, {}, {}, unit, scan)
    vectors = sample.vectors
    asked = np.random.default_rng(seed).permutation(len(vectors))[:queries]
    intrinsic = two_nn(vectors[:_INTRINSIC], neighbours(vectors[:_INTRINSIC], 2, "l2"))
    half = next(one.recall for one in reductions(vectors, asked, 10, subject.metric) if one.kind == "halfvec")
    built: dict[Candidate, Trial] = {}
    if server.temporary and (trials or len(vectors) >= LEAST):
        meant = list(found) if trials else _representatives(found)
        made = [one.within(len(vectors)) for one in meant]
        measured = try_out(connection, sample, made, target=target, queries=queries, progress=progress)
        built = dict(zip(meant, measured, strict=True))
        how = "tried" if trials else "calibrated"
    reranking = [one for one in found if one.reranks and len(vectors) >= LEAST]
    curves = {one: _ranks(one, sample, asked, growth_of(intrinsic)) for one in reranking}
    return Calibration(subject, how, len(vectors), intrinsic, half, curves, built, unit, scan)


def _representatives(found: Sequence[Candidate]) -> list[Candidate]:
    """A graph of each m and ef_construction, and lists; where no graph holds the vectors, one that holds less."""
    kinds: dict[tuple[int, ...], Candidate] = {}
    for one in found:
        if isinstance(one.index, IVFFlat):
            kinds.setdefault((), one)
        elif not one.reranks:
            kinds.setdefault((one.index.m, one.index.ef_construction), one)
    return list(kinds.values()) or list(found[:1])


def _unlike(one: VectorIndex, other: HNSW) -> float:
    """How far apart the settings of two graphs are."""
    assert isinstance(one, HNSW)
    return abs(math.log(one.m / other.m)) + abs(math.log(one.ef_construction / other.ef_construction))


def _ranks(candidate: Candidate, sample: Sample, asked: Places, growth: float) -> Curve:
    """Where an index that holds less proposes the true neighbours, in the sample and in a quarter of it."""
    vectors, metric, by = sample.vectors, sample.subject.metric, sample.subject.metric
    held = vectors[:, : candidate.index.prefix] if candidate.index.prefix else vectors
    if candidate.index.cast == "binary":
        held, by = signs(held), "inner_product"
    part = len(vectors) // 4
    fewer = np.arange(min(part, len(asked)))
    return Curve.of_ranks(
        ranks(vectors, held, asked, 10, metric, by),
        ranks(vectors[:part], held[:part], fewer, 10, metric, by),
        len(vectors),
        part,
        growth,
    )


def _curve(trial: Trial, growth: float) -> Curve:
    return Curve(trial.rows, 10 * trial.fit.queries, trial.fit.measured, growth)
