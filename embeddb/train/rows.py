"""Texts to train on from a database, a few at a time, and the encoder that came of them in its catalog."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    cast,
    func,
    inspect,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import NoSuchTableError

from embeddb.encoders import Encoder
from embeddb.errors import SourceError
from embeddb.orm import types as _types  # noqa: F401  (so that reflection knows columns of vectors)

#: Rows that are fetched at a time.
FETCHED: Final = 1000


def texts(connection: Connection, source: str | TextClause) -> Generator[str]:
    """The texts of "table.column" or "schema.table.column", or of the first column of a query; NULLs are left out.

    Through a cursor on the server, so no more than a thousand rows are in memory. Raises SourceError where there is
    no such column.
    """
    statement: Any = source
    if not isinstance(source, TextClause):
        column = column_of(connection, source)
        statement = select(column).where(column.is_not(None))
    with connection.execute(statement, execution_options={"yield_per": FETCHED}) as result:
        for row in result:
            if row[0] is not None:
                yield str(row[0])


def register_encoder(connection: Connection, encoder: Encoder) -> bool:
    """Note an encoder in the catalog, where there is one, with its fingerprint; whether there is."""
    if not inspect(connection).has_table("encoder", schema="embeddb"):
        return False
    table = Table(
        "encoder",
        MetaData(schema="embeddb"),
        Column("config", JSONB),
        Column("dim", Integer),
        Column("fingerprint", Text),
    )
    statement = insert(table).values(config=dict(encoder.config), dim=encoder.dim, fingerprint=encoder.fingerprint)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[func.md5(cast(table.c.config, Text)), table.c.dim],
            set_={"fingerprint": statement.excluded.fingerprint},
        )
    )
    return True


def column_of(connection: Connection, name: str) -> Column[Any]:
    """The column "table.column" or "schema.table.column" as the database has it; SourceError where it has none."""
    *schema, table, column = name.split(".") if name.count(".") in (1, 2) else ("", "", "")
    if not table or not column:
        raise SourceError(f"{name!r} is neither table.column nor schema.table.column")
    try:
        found = Table(table, MetaData(), schema=schema[0] if schema else None, autoload_with=connection)
    except NoSuchTableError:
        raise SourceError(f"{name}: there is no table {table!r}") from None
    return of_table(found, column, name)


def of_table(table: Table, column: str, name: str) -> Column[Any]:
    """A column of a reflected table; ``name`` is what the SourceError calls it where there is none."""
    if column not in table.columns:
        raise SourceError(f"{name}: {table.name!r} has no column {column!r}, only {', '.join(table.columns.keys())}")
    return table.columns[column]
