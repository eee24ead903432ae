"""``advise``: which storage and index an embedding should have, weighed by its rows, memory, writes and recall."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from embeddb.errors import QueryError
from embeddb.insight.building import memory_for
from embeddb.insight.calibration import Calibration, calibrate
from embeddb.insight.candidates import Candidate, candidates
from embeddb.insight.choice import Prediction, Weighing, choose
from embeddb.insight.reasons import reasons
from embeddb.insight.sample import Sample, Subject, draw, scan_seconds, subject_of
from embeddb.insight.server import Server, server_of
from embeddb.orm.effort import LEVELS, level_of
from embeddb.query.embedding import AnyEmbedding

#: The level of recall whose effort is the most that fitting is expected to find.
_MOST: Final = LEVELS[-1]
#: Rows below which a sample tells nothing of neighbours.
LEAST: Final = 50


@dataclass(frozen=True, slots=True)
class Advice:
    """``chosen``: the candidate to declare, None for no index. ``reasons``: why, in words, and what to mind.

    ``exact``: milliseconds that a search without an index would take. ``building``: the
    maintenance_work_mem to build with, None where the server's will do.
    """

    subject: Subject
    server: Server
    calibration: Calibration
    rows: int
    target: float
    predictions: tuple[Prediction, ...]
    exact: float
    chosen: Candidate | None
    building: str | None
    reasons: tuple[str, ...]

    @property
    def declaration(self) -> str:
        """What ``embedding_column`` should be given."""
        if self.chosen is not None:
            return self.chosen.declaration
        return "index=None" if self.subject.storage == "vector" else 'storage="halfvec", index=None'

    @property
    def changes(self) -> bool:
        """Whether that is other than what is declared."""
        declared = self.subject.index and Candidate(self.subject.storage, self.subject.index)
        return self.chosen != declared


def advise(
    connection: Connection,
    embedding: str | AnyEmbedding,
    *,
    recall: float = 0.95,
    rows: int | None = None,
    memory: str | None = None,
    sample: int = 5000,
    queries: int = 100,
    trials: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Weigh what pgvector can build for an embedding, and propose what to declare for that ``recall``.

    ``rows``: to plan for, by default those that are there. ``memory``: what the server may cache, ``"16GB"``, by
    default its effective_cache_size. ``trials``: build every candidate over the sample, in a temporary table, instead
    of three for calibration. ``connection``: in no transaction; the sample is read from the table, and nothing is
    written to it. A role that cannot make temporary tables, or a standby, gets figures by a scan's time and by the
    intrinsic dimension.

    Predicted are the size by the layout of pages (``sizes``), the seconds by ``Candidate.work``, and the recall@10 at
    the effort of searches that ask for this recall, as the sample's curve has it at a smaller effort (``curve``).
    Estimates: after building, ``embeddb recall`` measures, and fits the effort.

    Raises QueryError for what is no column of vectors, no recall, no memory, and for ``trials`` without vectors or
    without the right to make temporary tables.
    """
    level_of(recall)
    try:
        subject = subject_of(connection, embedding)
        drawn = draw(connection, subject, sample, seed=seed, least=0)
        scan = scan_seconds(connection, subject, drawn.vectors[0]) if len(drawn.vectors) else None
        server = server_of(connection, subject, memory)
        planned = rows or drawn.rows or server.rows
    finally:
        connection.rollback()
    if trials:
        _check_trials(subject, drawn, server)
    found = candidates(subject, planned)
    calibration = calibrate(
        connection,
        subject,
        drawn if len(drawn.vectors) >= LEAST else None,
        found,
        server,
        scan,
        target=recall,
        queries=queries,
        trials=trials,
        seed=seed,
        progress=progress,
    )
    predictions = tuple(_predict(one, calibration, planned, server, recall) for one in found)
    exact = 1000 * calibration.scan * planned
    weighing = Weighing(subject, server, planned, recall, exact, predictions, bool(calibration.trials))
    chosen = choose(weighing)
    return Advice(
        subject,
        server,
        calibration,
        planned,
        recall,
        predictions,
        exact,
        None if chosen is None else chosen.candidate,
        _building(chosen, server),
        tuple(reasons(weighing, chosen, calibration, drawn.rows)),
    )


def _check_trials(subject: Subject, drawn: Sample, server: Server) -> None:
    if len(drawn.vectors) < LEAST:
        raise QueryError(f"{subject.name} has {len(drawn.vectors)} rows with a vector, too few to try anything on")
    if not server.temporary:
        raise QueryError(
            "candidates are tried in a temporary table, which this role or server does not allow: "
            "GRANT TEMPORARY ON DATABASE, go to the primary, or do without trials"
        )


def _predict(candidate: Candidate, by: Calibration, rows: int, server: Server, recall: float) -> Prediction:
    dim = by.subject.dim
    building = memory_for(candidate, rows, dim, server)
    return Prediction(
        candidate=candidate,
        column=candidate.column(rows, dim),
        index=candidate.size(rows, dim),
        graph=candidate.graph(rows, dim),
        seconds=by.seconds(candidate, rows, server, building),
        recall=by.recall(candidate, rows, level_of(recall)),
        most=by.recall(candidate, rows, _MOST),
        building=building,
        trial=by.trials.get(candidate) if by.how == "tried" else None,
    )


def _building(chosen: Prediction | None, server: Server) -> str | None:
    if chosen is None or chosen.building <= server.building:
        return None
    return f"{math.ceil(chosen.building / 2**20)}MB"
