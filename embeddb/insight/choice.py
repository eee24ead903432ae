"""Which of the candidates: the smallest index that finds enough, where rows are too many for an exact search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embeddb.insight.candidates import Candidate
from embeddb.insight.sample import Subject
from embeddb.insight.server import Server
from embeddb.insight.trial import Trial
from embeddb.spec import HNSW

#: Milliseconds that an exact search may take, to be preferred to an index.
EXACT: Final = 10.0
#: The share of the memory for caching that one index may take.
SHARE: Final = 0.25
#: Above this share of its rows changed since the statistics began, a table is a busy one.
BUSY: Final = 0.1
#: An index that is declared is kept where another is not a fifth smaller.
KEPT: Final = 1.25


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of a candidate over all rows: bytes, seconds of building, recall at the effort that is asked.

    ``most``: the recall that more effort gives, as it is fitted. ``graph``: bytes that its build wants in memory,
    ``building``: that it should be given. ``trial``: what it was on the sample, where it was tried.
    """

    candidate: Candidate
    column: float
    index: float
    graph: float
    seconds: float
    recall: float
    most: float
    building: float
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class Weighing:
    """What a choice is made by.

    ``exact``: milliseconds of a search without an index. ``measured``: whether recall is by indexes that were built.
    """

    subject: Subject
    server: Server
    rows: int
    recall: float
    exact: float
    predictions: Sequence[Prediction]
    measured: bool = True

    @property
    def quick(self) -> bool:
        """Whether an exact search takes so little that there is no need of an index."""
        return self.exact <= EXACT

    @property
    def least(self) -> float:
        """The recall that will do: no prediction is nearer than a hundredth, or than half of what may be missed."""
        return self.recall - min(0.01, (1 - self.recall) / 2)


def choose(by: Weighing) -> Prediction | None:
    """Where an exact search is quick, what is declared, for a table may grow: an index, or None, which is no index.

    Else the smallest of the first of these that has any:

    graphs that hold the vectors, whole or in half precision, and have room in the cache: that reach the recall, or
    would by more effort; all graphs, likewise; IVFFlat, where rows are not written over, for its lists do not follow
    them.
    The column's storage changes only where column and index together have no room. What is declared is kept where it
    does nearly as well.
    """
    declared = next((one for one in by.predictions if _is_own(one, by.subject)), None)
    if by.quick:
        return declared
    graphs = [one for one in by.predictions if isinstance(one.candidate.index, HNSW)]
    plain = [one for one in graphs if not one.candidate.reranks and one.index <= SHARE * by.server.cache]
    lists = [one for one in by.predictions if one not in graphs and by.server.churn(by.rows) < BUSY]
    tiers = (
        [one for one in plain if by.measured and one.recall >= by.least],
        [one for one in plain if one.most >= by.least],
        [one for one in graphs if by.measured and one.recall >= by.least],
        [one for one in graphs if one.most >= by.least],
        [one for one in lists if one.recall >= by.least],
    )
    pool = next(filter(None, tiers), None)
    if pool is None:
        return max(graphs or by.predictions, key=lambda one: (one.most, -one.index))
    best = min(pool, key=lambda one: _cost(one, by))
    own = declared if declared in pool else best
    return own if own.index <= KEPT * best.index and own.column <= best.column else best


def _cost(one: Prediction, by: Weighing) -> tuple[float, bool, float]:
    crowded = one.column + one.index > by.server.cache
    return (one.index + one.column * crowded, one.candidate.storage != by.subject.storage, one.seconds)


def _is_own(one: Prediction, subject: Subject) -> bool:
    return (one.candidate.storage, one.candidate.index) == (subject.storage, subject.index)
