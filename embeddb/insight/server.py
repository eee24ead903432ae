"""What a server gives to a table of vectors, what is written to it, and what it may be filtered by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from embeddb.catalog.blocks import blocks
from embeddb.errors import QueryError
from embeddb.insight.sample import Subject

_SQL: Final = blocks("embeddb.insight", "advise.sql")


@dataclass(frozen=True, slots=True)
class Filter:
    """A column that searches may filter by, as ANALYZE saw it.

    ``name``: quoted where it must be. ``values``: distinct ones. ``common``: the share of the rows that have the
    commonest. ``ordered``: whether rows lie in its order, as they do by a date. ``indexed``: whether an index begins
    with it.
    """

    name: str
    values: int
    common: float
    ordered: bool
    indexed: bool


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how a table is used there.

    ``cache``, ``buffers``, ``building``: bytes that it caches at most, of these its own, and those it builds an index
    with. ``assumed``: the first is Postgres's default, which knows nothing of the machine. ``workers``: that help to
    build. ``temporary``: temporary tables can be made. ``inserted``, ``changed``: rows in ``days``; changed ones went
    into every index anew, or left it. ``partitioned``: how, if at all. ``plain``: whether the column
    keeps its vectors in line.
    """

    cache: int
    building: int
    buffers: int = 128 * 2**20
    workers: int = 2
    assumed: bool = False
    temporary: bool = True
    inserted: int = 0
    changed: int = 0
    days: float = 0.0
    rows: int = 0
    filters: tuple[Filter, ...] = ()
    partitioned: str | None = None
    plain: bool = False

    def churn(self, rows: float) -> float:
        """The share of the rows that were changed or deleted since the statistics began."""
        return self.changed / max(rows, 1)


def server_of(connection: Connection, subject: Subject, memory: str | None = None) -> Server:
    """Read settings and statistics. ``memory``: instead of effective_cache_size, as Postgres writes it, ``16GB``.

    Raises QueryError where that is no size.
    """
    prepare = connection.dialect.identifier_preparer
    quoted = prepare.format_table(subject.table)
    sources = [] if subject.spec is None else list(subject.spec.sources)
    about = {"memory": memory, "table": quoted, "column": subject.column.name, "sources": sources}
    try:
        server = connection.exec_driver_sql(_SQL["server"], about).one()
    except DBAPIError as error:
        connection.rollback()
        if memory is None:
            raise
        raise QueryError(f"a memory is written as Postgres does, 16GB or 512MB, not {memory!r}") from error
    table = connection.exec_driver_sql(_SQL["table"], about).one()
    writes = connection.exec_driver_sql(_SQL["writes"], about).one()
    filters = []
    for row in connection.exec_driver_sql(_SQL["filters"], about):
        values = row.distinct if row.distinct > 0 else -row.distinct * table.rows
        # Arrays, JSON, vectors and other composites are not filtered by equality.
        if row.category in "BDENSTU" and 1 < values <= table.rows / 50:
            ordered = row.category == "D" and abs(row.correlation or 0) > 0.9
            filters.append(Filter(prepare.quote(row.name), round(values), row.common, ordered, row.indexed))
    return Server(
        cache=server.cache,
        building=server.building,
        buffers=server.buffers,
        workers=server.workers,
        assumed=server.cache_is_default,
        temporary=server.temporary,
        inserted=writes.inserted,
        changed=writes.changed,
        days=writes.days,
        rows=table.rows,
        filters=tuple(filters),
        partitioned=table.partitioned,
        plain=table.plain,
    )
