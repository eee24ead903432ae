"""The third transaction of a batch, and what to do where Postgres refuses a row of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import Connection

from embeddb.queue import Done, Failed, Outcome, Settled, settle, wait, write
from embeddb.worker.encoding import Batch, Encoded

#: What a row itself can be blamed for: its values, constraints, and triggers that raise.
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.InternalError, psycopg.errors.RaiseException)


def settle_batch(connection: Connection[Any], worker: int, batch: Batch, encoded: Encoded) -> Settled:
    """Write what was encoded and settle the jobs, in one transaction.

    A row whose write Postgres refuses (a constraint, a trigger that raises) becomes a failure; the others are written.
    Raises TargetChanged, with nothing written, where a column was renamed since the batch was read.
    Deferred constraints are checked at once, so that they too can be laid to their row.
    """
    with connection.transaction():
        settled = _settle(connection, worker, batch, encoded)
        batch.target.check_names(connection)
    # What memory had no room for was never taken up.
    return replace(settled, kept=settled.kept - len(batch.unread))


def _settle(connection: Connection[Any], worker: int, batch: Batch, encoded: Encoded) -> Settled:
    if encoded.pause is not None:
        wait(connection, batch.target, *encoded.pause)
    outcomes = encoded.outcomes
    try:
        with connection.transaction():
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            return settle(connection, batch.target, worker, batch.jobs, outcomes)
    except _REFUSED:
        outcomes = {**outcomes, **_refused(connection, batch, outcomes)}
    return settle(connection, batch.target, worker, batch.jobs, outcomes)


def _refused(connection: Connection[Any], batch: Batch, outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """The rows that cannot be written, found by halves whose writes are rolled back."""
    found: dict[str, Outcome] = {}
    parts = [[(key, outcome) for key, outcome in outcomes.items() if isinstance(outcome, Done)]]
    while parts:
        part = parts.pop()
        if not part:
            continue
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                write(connection, batch.target, dict(part))
        except _REFUSED as error:
            if len(part) == 1:
                [(key, outcome)] = part
                found[key] = Failed(outcome.hash, "write", str(error).strip())
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
    return found
