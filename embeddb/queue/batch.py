"""The third transaction: what became of every key of a batch, written as one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from psycopg import Connection
from psycopg.rows import scalar_row

from embeddb.queue.digests import note_files
from embeddb.queue.jobs import Job, finish, put_back
from embeddb.queue.target import QUERIES, Target
from embeddb.queue.vectors import VectorArray, dumper
from embeddb.sources.files import FileState
from embeddb.vectors.wire import Vector

Step = Literal["read", "encode", "write"]

#: Longer messages of encoders are cut.
MAX_ERROR: Final = 2000


@dataclass(frozen=True, slots=True)
class Done:
    """Encoded: the vector, or None for a row whose sources are blank, and the hash of the sources it is of.

    ``file``: the content that was encoded, where the source names a file.
    """

    hash: int
    vector: Vector | None
    file: FileState | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Beyond hope: to be recorded in ``embeddb.failure``. ``hash`` is None where the sources could not be read."""

    hash: int | None
    step: Step
    error: str


@dataclass(frozen=True, slots=True)
class Later:
    """Not now: stays queued, ``seconds`` from now. ``counted``: whether this claim was an attempt."""

    seconds: float = 0.0
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """``read`` returned no row for the key, so none is left to embed."""


Outcome = Done | Failed | Later | Gone


@dataclass(frozen=True, slots=True)
class Settled:
    """How many keys were written, are gone, failed, and stay queued."""

    written: int
    gone: int
    failed: int
    kept: int


def settle(
    connection: Connection[Any],
    target: Target,
    worker: int,
    jobs: Sequence[Job],
    outcomes: Mapping[str, Outcome],
) -> Settled:
    """Write a batch's outcomes and settle its jobs. The caller opens and commits the transaction around it.

    A key that is without an outcome, whose row is locked by a writer, or whose sources changed since they were
    read, stays queued: its job is kept, cut down to such keys. All other keys leave their jobs, and a job without
    keys is deleted. Why that loses nothing: see the head of ``queries.sql``.
    """
    done = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Done)}
    failed = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Failed)}
    gone = {key for key, outcome in outcomes.items() if isinstance(outcome, Gone)}
    written = write(connection, target, done)
    recorded = _fail(connection, target, failed, jobs)
    # Rows that were there when read, and could be neither written nor recorded: locked, changed, or deleted since.
    left = [key for key in (*done, *failed) if key not in written and key not in recorded]
    gone |= _absent(connection, target, left)
    if written:
        _recover(connection, target, written)
        note_files(connection, target, {key: done[key].file for key in written})

    settled = written | recorded | gone
    kept = 0
    finished, remaining = [], []
    for job in jobs:
        rest = [key for key in dict.fromkeys(job.keys) if key not in settled]
        kept += len(rest)
        if not rest:
            finished.append(job.id)
            continue
        # A job has one delay: the longest that its keys ask for.
        laters = [outcome for key in rest if isinstance(outcome := outcomes.get(key), Later)]
        seconds = max((later.seconds for later in laters), default=0.0)
        remaining.append((job.id, rest, seconds, any(later.counted for later in laters)))
    if finished:
        finish(connection, worker, finished)
    if remaining:
        put_back(connection, worker, remaining)
    return Settled(len(written), len(gone), len(recorded), kept)


def write(connection: Connection[Any], target: Target, done: Mapping[str, Done]) -> set[str]:
    """Vectors into their rows, as one set; the keys that were written: not locked, and their sources unchanged."""
    if not done:
        return set()
    keys = list(done)
    vectors = [outcome.vector for outcome in done.values()]
    with connection.cursor(row_factory=scalar_row) as cursor:
        cursor.adapters.register_dumper(VectorArray, dumper(target.array_oid))
        cursor.execute(
            target.statement("write"),
            {
                "keys": keys,
                "hashes": [outcome.hash for outcome in done.values()],
                "vectors": VectorArray.of(vectors, target.storage, target.vector_oid),
            },
        )
        return {keys[place - 1] for place in cursor.fetchall()}


def _recover(connection: Connection[Any], target: Target, written: set[str]) -> None:
    """Drop the failures of rows that are well now. Sending their keys costs more than asking whether there are any."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        [failures] = cursor.execute(QUERIES["any_failures"], {"embedding": target.id})
    if failures:
        connection.execute(QUERIES["recover"], {"embedding": target.id, "keys": list(written)})


def _fail(connection: Connection[Any], target: Target, failed: Mapping[str, Failed], jobs: Sequence[Job]) -> set[str]:
    if not failed:
        return set()
    attempts = {key: job.attempts for job in jobs for key in job.keys}
    keys = list(failed)
    with connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(
            target.statement("fail"),
            {
                "embedding": target.id,
                "keys": keys,
                "hashes": [outcome.hash for outcome in failed.values()],
                "steps": [outcome.step for outcome in failed.values()],
                "errors": [outcome.error.replace("\x00", "")[:MAX_ERROR] for outcome in failed.values()],
                "attempts": [attempts.get(key, 0) for key in keys],
            },
        )
        return {keys[place - 1] for place in cursor.fetchall()}


def _absent(connection: Connection[Any], target: Target, keys: list[str]) -> set[str]:
    if not keys:
        return set()
    with connection.cursor(row_factory=scalar_row) as cursor:
        return {keys[place - 1] for place in cursor.execute(target.statement("absent"), {"keys": keys})}
