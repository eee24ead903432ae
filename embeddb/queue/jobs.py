"""What a worker does to jobs. Each function is one statement; the caller owns the transaction.

Connections are psycopg's, at READ COMMITTED, after ``prepare``. Keys are opaque JSON texts as the catalog holds
them; they go back to the database as they came.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from psycopg import Connection
from psycopg.errors import UndefinedTable
from psycopg.rows import class_row, scalar_row

from embeddb.errors import CatalogMissing
from embeddb.queue.target import QUERIES, Target


@dataclass(frozen=True, slots=True)
class Job:
    """A leased job: the keys of rows that one statement left to embed.

    ``attempts`` counts this claim too; ``returned``, how many of them came back with an answer.
    """

    id: int
    keys: tuple[str, ...]
    attempts: int
    returned: int
    priority: int
    enqueued_at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))

    @property
    def deaths(self) -> int:
        """How many workers had it and ended without an answer."""
        return self.attempts - 1 - self.returned


@dataclass(frozen=True, slots=True)
class Row:
    """A present row: its key, its sources' values in order, and the hash that ``settle`` compares."""

    key: str
    values: tuple[Any, ...]
    hash: int


def prepare(connection: Connection[Any]) -> None:
    """Make a new connection fit for the queue: settings that a source's text, and so its hash, depends on."""
    connection.execute(QUERIES["session"])


def register_worker(connection: Connection[Any]) -> int:
    """A new row in ``embeddb.worker`` for this process; its id. Raises CatalogMissing."""
    parameters = {"host": socket.gethostname(), "pid": os.getpid(), "version": _version()}
    try:
        [worker] = connection.cursor(row_factory=scalar_row).execute(QUERIES["register_worker"], parameters)
    except UndefinedTable:
        raise CatalogMissing from None
    return int(worker)


def _version() -> str:
    try:
        return version("embeddb")
    except PackageNotFoundError:
        return "source"


def heartbeat(
    connection: Connection[Any],
    worker: int,
    *,
    jobs: Sequence[int],
    lease: timedelta,
    embedded: int = 0,
    failed: int = 0,
    stopping: bool = False,
) -> None:
    """A sign of life with the totals so far, and the leases on ``jobs`` made longer."""
    connection.execute(
        QUERIES["heartbeat"],
        {
            "worker": worker,
            "jobs": list(jobs),
            "lease": lease,
            "embedded": embedded,
            "failed": failed,
            "stopping": stopping,
        },
    )


def leave(connection: Connection[Any], worker: int, jobs: Sequence[int] = ()) -> None:
    """The worker goes: its row is removed, and ``jobs``, which it still holds, are free at once."""
    connection.execute(QUERIES["leave"], {"worker": worker, "jobs": list(jobs)})


def bury(connection: Connection[Any], silent: timedelta) -> None:
    """Remove the rows of workers without a heartbeat for so long. Their leases run out by themselves."""
    connection.execute(QUERIES["bury"], {"silent": silent})


def claim(connection: Connection[Any], target: Target, worker: int, *, rows: int, lease: timedelta) -> list[Job]:
    """Lease ready jobs holding about ``rows`` rows, most urgent first; empty where nothing is ready.

    At most ``rows`` jobs, and the last may overshoot by its size (a job holds at most 256 rows). Commit before
    encoding: no transaction stays open while the encoder runs.
    """
    cursor = connection.cursor(row_factory=class_row(Job))
    parameters = {"embedding": target.id, "worker": worker, "rows": rows, "jobs": rows, "lease": lease}
    return cursor.execute(QUERIES["claim"], parameters).fetchall()


def read(connection: Connection[Any], target: Target, keys: Sequence[str]) -> list[Row]:
    """The rows of these keys that are there. A key without a row is gone: report it as ``Gone``."""
    # Bytes come as they are, not as twice as many digits. All at once: cursors yield single rows much more slowly.
    binary = target.source_types == ("bytea",)
    rows = connection.execute(target.statement("read"), {"keys": list(keys)}, binary=binary).fetchall()
    return [Row(keys[row[0] - 1], row[2:], row[1]) for row in rows]


def finish(connection: Connection[Any], worker: int, jobs: Sequence[int]) -> None:
    """Delete jobs whose every key is settled, as far as this worker still holds them."""
    connection.execute(QUERIES["finish"], {"jobs": list(jobs), "worker": worker})


def release(
    connection: Connection[Any],
    worker: int,
    jobs: Sequence[Job],
    *,
    delay: timedelta = timedelta(),
    counted: bool = False,
) -> None:
    """Give whole jobs back, to be claimed after ``delay``. Not ``counted``: the claim was no attempt."""
    put_back(connection, worker, [(job.id, job.keys, delay.total_seconds(), counted) for job in jobs])


def put_back(connection: Connection[Any], worker: int, jobs: Sequence[tuple[int, Sequence[str], float, bool]]) -> None:
    """Give jobs back, each as (id, keys still to do, seconds to wait, whether the claim was an attempt)."""
    connection.execute(
        QUERIES["release"],
        {
            "worker": worker,
            "jobs": [job for job, _, _, _ in jobs],
            "remaining": [f"[{','.join(keys)}]" for _, keys, _, _ in jobs],
            "delays": [delay for _, _, delay, _ in jobs],
            "uncounts": [not counted for _, _, _, counted in jobs],
        },
    )


def split(connection: Connection[Any], worker: int, jobs: Sequence[int]) -> None:
    """Give jobs back as jobs of one row each, so that a row that kills its worker comes to stand alone."""
    connection.execute(QUERIES["split"], {"jobs": list(jobs), "worker": worker})


def wait(connection: Connection[Any], target: Target, seconds: float, reason: str) -> None:
    """A rate limit: no worker claims for this embedding's encoder for so long."""
    connection.execute(QUERIES["wait"], {"embedding": target.id, "seconds": seconds, "reason": reason})


def idle_until(connection: Connection[Any], target: Target) -> float | None:
    """Seconds until something is ready: 0 for now, None where nothing is queued."""
    cursor = connection.cursor(row_factory=scalar_row)
    seconds: float | None = cursor.execute(QUERIES["idle_until"], {"embedding": target.id}).fetchone()
    return seconds


def retry(connection: Connection[Any], target: Target, keys: Sequence[str] | None = None) -> int:
    """Queue failed rows again, all of them or those of ``keys``; how many."""
    parameters = {"embedding": target.id, "keys": None if keys is None else list(keys)}
    return connection.execute(QUERIES["requeue"], parameters).rowcount


def forget(connection: Connection[Any], target: Target, keys: Sequence[str] | None = None) -> int:
    """Drop failures without a retry; how many. The rows stay without a vector of their sources, and verify says so."""
    parameters = {"embedding": target.id, "keys": None if keys is None else list(keys)}
    return connection.execute(QUERIES["forget"], parameters).rowcount
