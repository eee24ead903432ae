"""What ran: a statement as SQL with its parameters, and the plan that Postgres chose for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Plan:
    """A statement's SQL, as it goes to the driver, and the lines of its EXPLAIN."""

    sql: str
    lines: tuple[str, ...]

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names of the indexes that are scanned."""
        found = (re.search(r"Index (?:Only )?Scan(?: Backward)? using (\S+)", line) for line in self.lines)
        bitmaps = (re.search(r"Bitmap Index Scan on (\S+)", line) for line in self.lines)
        return tuple(match[1].strip('"') for match in (*found, *bitmaps) if match)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(bind: Session | Connection, statement: Select[Any], parameters: Mapping[str, Any] | None = None) -> Plan:
    """The plan of ``statement`` in the present transaction: EXPLAIN, so the statement itself does not run.

    The query's text, if it has one, is encoded as it would be.
    """
    connection = bind.connection() if isinstance(bind, Session) else bind
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    values = compiled.construct_params(dict(parameters or {}))
    processors: Mapping[str, Any] = compiled._bind_processors
    sent = {name: processors[name](value) if name in processors else value for name, value in values.items()}
    rows = connection.exec_driver_sql("EXPLAIN (COSTS OFF) " + compiled.string, sent)
    return Plan(compiled.string, tuple(row[0] for row in rows))
