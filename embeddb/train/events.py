"""Events to train on from a table, a few at a time, and the vectors that came of them into the items' table."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy import Column, Connection, Double, MetaData, Table, Text, cast, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import NoSuchTableError

from embeddb.catalog.blocks import blocks
from embeddb.errors import SourceError
from embeddb.orm.types import VECTOR, VectorType
from embeddb.train.rows import FETCHED, column_of, of_table
from embeddb.vectors import to_text

Row = tuple[str | int, str | int, Any, float]

#: Neighbours by content whose vectors a cold item takes the mean of.
NEIGHBOURS: Final = 10
_NUMBERS: Final = (int, float, Decimal)

_BLOCKS: Final = blocks("embeddb.train", "events.sql")


@dataclass(frozen=True, slots=True)
class EventsTable:
    """The columns of a table of events. ``at`` and ``weight`` may be None: then rows come in the order of their key."""

    user: Column[Any]
    item: Column[Any]
    at: Column[Any] | None = None
    weight: Column[Any] | None = None

    @classmethod
    def of(
        cls, connection: Connection, table: str, user: str, item: str, at: str | None = None, weight: str | None = None
    ) -> EventsTable:
        """The table "events" or "schema.events" as the database has it; SourceError where it or a column is absent."""
        schema, _, name = table.rpartition(".")
        try:
            found = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
        except NoSuchTableError:
            raise SourceError(f"there is no table {table!r} of events") from None

        def column(named: str | None) -> Column[Any] | None:
            return None if named is None else of_table(found, named, f"{table}.{named}")

        counted = column(weight)
        if counted is not None and _kind(counted) not in _NUMBERS:
            raise SourceError(f"{table}.{weight} is of type {counted.type!r}: a weight is a number")
        return cls(of_table(found, user, table), of_table(found, item, table), column(at), counted)

    def rows(self, connection: Connection) -> Generator[Row]:
        """(user, item, time, weight) in order of time, through a cursor on the server; rows with a NULL are left out.

        Keys that are neither text nor integers are given as text.
        """
        table = self.user.table
        columns = [column for column in (self.user, self.item, self.at, self.weight) if column is not None]
        statement = (
            select(
                _plain(self.user),
                _plain(self.item),
                literal_column("0") if self.at is None else self.at,
                literal_column("1") if self.weight is None else cast(self.weight, Double()),
            )
            .where(*(column.is_not(None) for column in columns))
            .order_by(*([] if self.at is None else [self.at]), *table.primary_key)
        )
        with connection.execute(statement, execution_options={"yield_per": FETCHED}) as result:
            for row in result:
                yield (row[0], row[1], row[2], row[3])

    def key_of(self, column: Column[Any], reference: Column[Any]) -> Column[Any]:
        """What ``reference``, user or item, refers to in the table of ``column``: a foreign key's, or its primary key.

        Raises SourceError where that is another kind of value, or there is no one key.
        """
        for key in reference.foreign_keys:
            if key.column.table.fullname == column.table.fullname:
                return of_table(column.table, key.column.name, column.table.fullname)
        keys = list(column.table.primary_key)
        if len(keys) != 1:
            raise SourceError(f"{column.table.name} has {len(keys)} key columns, and no event refers to one of them")
        kinds = {int if _kind(each) in _NUMBERS else _kind(each) for each in (keys[0], reference)}
        if len(kinds) > 1 and str not in kinds:  # a text may spell any key
            raise SourceError(
                f"{reference.table.name}.{reference.name} is of type {reference.type!r}, and the key of "
                f"{column.table.name} of {keys[0].type!r}: give a column of the table that it refers to"
            )
        return keys[0]


def content_of(column: Column[Any], name: str) -> Column[Any]:
    """The column ``name`` of the table of ``column``, for items' content; SourceError where that is no vector."""
    found = of_table(column.table, name, str(column))
    if not isinstance(found.type, VectorType):
        raise SourceError(f"{found} is of type {found.type!r}: items' content is a column of vectors")
    return found


def vector_of(connection: Connection, name: str, dim: int) -> Column[Any]:
    """The column "table.column" for vectors of ``dim`` dimensions; SourceError, with the remedy, for another."""
    try:
        column = column_of(connection, name)
    except SourceError as error:
        raise SourceError(f"{error}; a column for these vectors is of type vector({dim})") from None
    found = getattr(column.type, "dim", None)
    if not isinstance(column.type, VECTOR) or found not in (None, dim):
        raise SourceError(f"{name} is of type {column.type!r}: give a column of type vector({dim}), or another --dim")
    return column


def store(
    connection: Connection,
    key: Column[Any],
    keys: Sequence[Any],
    vectors: Mapping[str, NDArray[np.float32]],
    content: Column[Any] | None = None,
) -> tuple[int, int]:
    """Write vectors into columns of ``key``'s table, in one UPDATE; how many rows have one, and how many by content.

    ``keys``: of the rows, in the order of the vectors, which are (rows, dim) by column name; a row of NaN is NULL.
    Rows that are not named lose theirs, which was of another model, or get the mean of their nearest neighbours' by
    ``content``, another column of vectors, compared by cosine.
    """
    table = key.table
    assert isinstance(table, Table)
    names = {
        "table": sql.Identifier(*filter(None, (table.schema, table.name))),
        "key": sql.Identifier(key.name),
        "key_type": sql.SQL(key.type.compile(postgresql.dialect())),  # type: ignore[no-untyped-call]  # untyped there
        "content": sql.Identifier(key.name if content is None else content.name),
        "neighbours": sql.Literal(NEIGHBOURS),
        "schema": sql.Identifier(connection.exec_driver_sql(_BLOCKS["schema"]).scalar_one()),
    }
    columns = [sql.Identifier(name) for name in vectors]
    comma = sql.SQL(", ")
    names |= {
        "columns": comma.join(sql.SQL("{} {}.vector").format(column, names["schema"]) for column in columns),
        "set": comma.join(sql.SQL("{0} = f.{0}").format(column) for column in columns),
        "new": comma.join(sql.SQL("n.{}").format(column) for column in columns),
        "old": comma.join(sql.SQL("t.{}").format(column) for column in columns),
        "means": comma.join(sql.SQL("{0}.avg(n.{1}) AS {1}").format(names["schema"], column) for column in columns),
        "first": columns[0],
    }

    def run(block: str) -> Any:
        return connection.exec_driver_sql(sql.SQL(_BLOCKS[block]).format(**names).as_string(None))

    run("stage")
    cursor = connection.connection.cursor()
    with cursor.copy("COPY embeddb_trained FROM STDIN") as copy:
        for place, value in enumerate(keys):
            copy.write_row((value, *(_text(each[place]) for each in vectors.values())))
    cursor.close()
    run("analyze")
    near = 0 if content is None else run("neighbours").rowcount
    run("update")
    stored = int(run("count").scalar_one())
    run("drop")
    return stored, near


def _text(vector: NDArray[np.float32]) -> str | None:
    return None if np.isnan(vector).any() else to_text(vector)


def _plain(column: Column[Any]) -> Any:
    """A key as the text or the integer that it is, or else as text."""
    return column if _kind(column) in (int, str) else cast(column, Text)


def _kind(column: Column[Any]) -> type | None:
    """What its values are in Python; None for what SQLAlchemy does not know."""
    try:
        kind: type = column.type.python_type
    except NotImplementedError:
        return None
    return kind
