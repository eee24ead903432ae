"""Why a candidate was chosen, and what to mind with it, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from embeddb.insight.building import workers_for
from embeddb.insight.calibration import Calibration
from embeddb.insight.choice import BUSY, EXACT, SHARE, Prediction, Weighing
from embeddb.insight.server import Filter
from embeddb.insight.sizes import vector_bytes
from embeddb.spec import HNSW

#: Rows that a search asks for.
_K: Final = 10
#: Rows from which partitions are worth their trouble; and how many parts, and what share of one value, are sensible.
_PARTITIONED: Final = 1_000_000
_PARTS: Final = 200
_ONE_VALUE: Final = 0.5
#: Up to so many columns are spoken of.
_FILTERS: Final = 5
#: Times the rows of a sample to which recall is carried over without a word of caution.
_FAR: Final = 100
#: Bytes of a vector that Postgres leaves in its row, and that a row has room for.
_IN_LINE: Final = 2000
_PAGE: Final = 7800
#: Rows a second that an HNSW index takes up at least.
_INSERTS: Final = 170


def reasons(by: Weighing, chosen: Prediction | None, calibration: Calibration, vectors: int) -> Iterator[str]:
    """Line by line, the choice first. ``vectors``: rows that have one now."""
    yield from _none(by) if chosen is None or by.quick else _index(by, chosen)
    yield _ground(by, calibration, vectors)
    if calibration.rows and by.rows > _FAR * calibration.rows:
        yield (
            f"That is carried far, to {by.rows / calibration.rows:,.0f} times the rows: recall may well be off by some "
            f"hundredths. --sample {20 * calibration.rows} narrows it."
        )
    if vectors < by.server.rows / 2:
        yield (
            f"{vectors:,} of {by.server.rows:,} rows have a vector: to plan for all, give --rows {by.server.rows}."
            if by.rows != by.server.rows
            else f"None of {by.rows:,} rows has a vector yet; all are planned for."
        )
    yield from _out_of_line(by, chosen)
    if chosen is not None and not by.quick:
        yield from _memory(by, chosen)
        yield from _building(by, chosen)
    yield from _writes(by)
    yield from _filters(by)


def _none(by: Weighing) -> Iterator[str]:
    if not by.rows:
        yield "There are no rows yet. Say how many there will be: --rows 1000000."
        return
    per_row = by.exact / by.rows
    yield (
        f"An exact search of {by.rows:,} rows takes about {duration(by.exact / 1000)}, finds all, follows every filter "
        f"and needs no upkeep. An index begins to pay at about {_round(EXACT / per_row):,} rows."
    )
    if by.subject.index is not None:
        yield "The index that is there stays, for the table may grow beyond that. If it will not, declare index=None."


def _index(by: Weighing, chosen: Prediction) -> Iterator[str]:
    candidate = chosen.candidate
    yield (
        f"{candidate.declaration}: an index of {size(chosen.index)}, built in about {duration(chosen.seconds)}, "
        f"expected recall {chosen.recall:.3f}. An exact search would take about {duration(by.exact / 1000)}."
    )
    if chosen.recall < by.least:
        yield (
            f"It needs more effort than is usual for {by.recall:g}: embeddb recall {by.subject.name} --target "
            f"{by.recall:g} finds out how much, and searches take longer by it."
            if chosen.most >= by.least
            else f"No candidate is expected to reach {by.recall:g}, with more effort either; this one comes nearest."
        )
    if candidate.storage != by.subject.storage:
        yield (
            f"The column shrinks by {size(_saved(by, chosen))}, and with it what is cached and written ahead. It is "
            "rewritten under a lock, and its numbers are rounded to three digits for good. To keep them, declare "
            'HNSW(cast="halfvec"): the index is the same.'
        )
    elif candidate.halves(by.subject):
        yield "The index holds half precision, the column keeps the vectors; distances are good to three digits."
    if candidate.reranks:
        yield "Such an index proposes candidates, and searches rank them by the vectors, which want room in memory too."
    largest = max(by.predictions, key=lambda one: one.index)
    if chosen.index < 0.7 * largest.index:
        yield f"The largest candidate would take {size(largest.index)} ({largest.candidate.declaration})."


def _out_of_line(by: Weighing, chosen: Prediction | None) -> Iterator[str]:
    """Reading whole vectors is what an exact search and a second ranking do."""
    whole = chosen is None or chosen.candidate.reranks
    wide = vector_bytes(by.subject.dim, by.subject.storage)
    if whole and by.rows and _IN_LINE < wide < _PAGE and not by.server.plain:
        yield (
            f"A vector of {size(wide)} lies out of line, which makes reading it some four times slower. Before rows "
            f"are loaded: ALTER TABLE {by.subject.table.fullname} ALTER {by.subject.column.name} SET STORAGE PLAIN."
        )


def _ground(by: Weighing, calibration: Calibration, vectors: int) -> str:
    intrinsic = "" if math.isnan(calibration.intrinsic) else f" (intrinsic dimension {calibration.intrinsic:.0f})"
    if calibration.how == "tried":
        return (
            f"Each candidate was built over {calibration.rows:,} rows{intrinsic}; its recall and time are carried over "
            f"to {by.rows:,}."
        )
    if calibration.how == "calibrated":
        return (
            f"Recall and time are carried over from indexes built over {calibration.rows:,} of {vectors:,} rows"
            f"{intrinsic}, in a temporary table; --try builds every candidate."
        )
    if calibration.how == "timed":
        if not by.server.temporary:
            why = "this role or server allows no temporary table"
        else:
            why = f"{vectors:,} rows with a vector are too few"
        return (
            f"Nothing was built, for {why}: time is estimated from an exact search, recall is what vectors{intrinsic} "
            "typically have. Take both with care."
        )
    return (
        f"{vectors:,} vectors are too few to measure by: time and recall are what is typical. Sizes hold all the same."
    )


def _memory(by: Weighing, chosen: Prediction) -> Iterator[str]:
    room = SHARE * by.server.cache
    if by.server.assumed:
        yield (
            f"effective_cache_size is Postgres's default, {size(by.server.cache)}, which knows nothing of the machine: "
            "say --memory, or set it."
        )
    if chosen.index > room:
        parts = math.ceil(chosen.index / room)
        yield (
            f"The index is {chosen.index / by.server.cache:.0%} of the {size(by.server.cache)} that can be cached, and "
            "graphs are slow from disk: give the server more memory, "
            + ("or search single parts." if by.server.partitioned else f"or partition the table, into {parts} or more.")
        )


def _building(by: Weighing, chosen: Prediction) -> Iterator[str]:
    if not isinstance(chosen.candidate.index, HNSW):
        yield "Build it once the rows are there, for its lists are made of them."
        return
    workers = workers_for(chosen.candidate, by.rows, by.subject.dim, by.server, chosen.building)
    if chosen.building > by.server.building:
        yield (
            f"Build it with maintenance_work_mem = '{math.ceil(chosen.building / 2**20)}MB' "
            f"(now {size(by.server.building)}): the graph takes {size(chosen.graph)} while it is built, what does not "
            "fit is built several times slower, and Postgres starts a worker for 32 MB each."
            + (" In a container, /dev/shm must have that much for a parallel build." if workers else "")
        )
    if chosen.seconds > 600 and workers <= 2:
        yield (
            f"Postgres will build it with {workers} workers beside the first process: raise "
            f"max_parallel_maintenance_workers (now {by.server.workers}) towards the number of cores."
        )


def _writes(by: Weighing) -> Iterator[str]:
    server = by.server
    churn = server.churn(by.rows)
    if churn >= BUSY:
        yield (
            f"{server.changed:,} rows were changed or deleted in {server.days:.1f} days, {churn:.0%} of all. IVFFlat "
            "is left out, for its lists stay as they were; an HNSW index keeps what is dead until VACUUM, which is "
            "slow on it: REINDEX CONCURRENTLY now and then."
        )
    if server.days > 0.04:
        rate = (server.inserted + server.changed) / (86400 * server.days)
        if rate > _INSERTS / 10:
            yield (
                f"{rate:,.0f} rows a second are written on average, and an HNSW index takes some {_INSERTS} to 500: "
                "load by batches with the index dropped, where that can be."
            )


def _filters(by: Weighing) -> Iterator[str]:
    server = by.server
    if server.partitioned:
        yield f"The table is partitioned by {server.partitioned}: each part has an index of its own."
    # Up to so many matching rows an exact search of them is the faster one.
    crossover = math.sqrt(20 * by.rows * _K)
    known = [one for one in server.filters if one.name not in re.findall(r'"[^"]+"|\w+', server.partitioned or "")]
    for one in sorted(known, key=lambda one: one.values)[:_FILTERS]:
        # A column with few commonest values says nothing of their share: all are alike.
        share = one.common or 1 / one.values
        most = share * by.rows
        parts = _parts(one, by)
        if parts and (one.ordered or most > crossover):
            yield parts
        elif most <= crossover:
            if not one.indexed:
                yield (
                    f"{one.name} has {one.values:,} values of at most {_round(most):,} rows each. Those are read "
                    f"faster than an index of all is: searches that filter by it want a B-tree index on {one.name}."
                )
        elif one.values <= 10:
            yield (
                f"{one.name} has {one.values} values; if searches always name one, a partial index for each "
                f"(WHERE {one.name} = …) is the smaller and faster one."
            )


def _parts(one: Filter, by: Weighing) -> str | None:
    if by.rows < _PARTITIONED or by.server.partitioned or one.common > _ONE_VALUE:
        return None
    if one.ordered:
        return f"Rows lie in the order of {one.name}: PARTITION BY RANGE ({one.name}), if searches bound it."
    if one.values <= _PARTS:
        return f"{one.name} has {one.values} values: PARTITION BY LIST ({one.name}), if every search names one."
    return f"{one.name} has {one.values:,} values: PARTITION BY HASH ({one.name}), if every search names one."


def _saved(by: Weighing, chosen: Prediction) -> float:
    return max(one.column for one in by.predictions) - chosen.column


def size(value: float) -> str:
    """Bytes in words: kB, MB, GB of 1,024, as Postgres has them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1024
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 0.95:
        return f"{1000 * seconds:.0f} ms" if seconds > 0.01 else f"{1000 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _round(rows: float) -> int:
    """To two digits."""
    digits = max(0, math.floor(math.log10(max(rows, 1))) - 1)
    return int(round(rows, -digits))
