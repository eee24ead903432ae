"""Vector indexes of a database as it has them, and how far builds are that go on."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Connection

from embeddb.catalog.blocks import blocks

_SQL = blocks("embeddb.catalog", "indexes.sql")


class IndexState(NamedTuple):
    """An HNSW or IVFFlat index.

    ``columns``: of the table, that it is over. ``place``: its name as Postgres writes it for this connection, quoted
    and with its schema where that is needed. ``valid``: searches use it. ``leftover``: what an interrupted REINDEX
    or DROP CONCURRENTLY has left. ``held``: somebody builds an index of the table, or vacuums it. ``size``: bytes.
    """

    schema: str
    table: str
    columns: list[str]
    name: str
    place: str
    method: str
    opclass: str
    expression: str
    options: list[str]
    valid: bool
    partitioned: bool
    size: int
    leftover: bool
    held: bool


class Build(NamedTuple):
    """An index that is being built: ``done`` of ``total`` (0: not known) in ``unit``, in the present ``phase``.

    ``place``: the index's name as Postgres writes it for this connection. ``rows``: put into it so far, where the
    method counts them.
    """

    place: str
    phase: str
    done: int
    total: int
    unit: str
    rows: int

    def __str__(self) -> str:
        share = f" {self.done / self.total:.0%}" if self.total else ""
        rows = f", {self.rows} rows" if self.rows else ""
        return f"{self.phase}{share}{rows}"


def read_index_states(
    connection: Connection, *, schema: str | None = None, table: str | None = None, column: str | None = None
) -> list[IndexState]:
    """The vector indexes of a database, of a table, or of a column."""
    parameters = {"schema": schema, "table": table, "column": column}
    rows = connection.exec_driver_sql(_SQL["indexes"], parameters).mappings()
    return [IndexState(**row) for row in rows]


def read_builds(connection: psycopg.Connection[Any], pid: int | None = None) -> list[Build]:
    """The builds that go on in this database, or the one of a server process.

    Of other roles' builds only those are told that the role may see (``pg_read_all_stats``).
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        return [Build(**row) for row in cursor.execute(_SQL["builds"], {"pid": pid}) if row["phase"] is not None]
