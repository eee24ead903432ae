"""Which columns a COPY writes, what each is in the database, and what fills those that the caller left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Table,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.orm import Mapper

from embeddb.errors import LoadError
from embeddb.orm.copy_rows import Field, Packer, Where, pack_column
from embeddb.orm.copy_types import PACKED_SENDS, packer_of
from embeddb.orm.defaults import UNREADABLE, insert_default

#: Types whose values the packers take as they are; for others SQLAlchemy's bind processor comes first.
_PLAIN: Final = (Integer, Float, Boolean, Uuid, Date, DateTime, LargeBinary)

# A domain has its base type's send function. atthasdef is true of generated columns too.
_TYPES: Final = text(
    """
    SELECT a.attname AS name, p.proname AS send, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
           CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END AS oid,
           CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required,
           a.attgenerated <> '' AS generated
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typsend
    WHERE a.attrelid = pg_catalog.to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
    """
)


@dataclass(frozen=True, slots=True)
class Target:
    """The table of a mapped class, or a table: its columns by the caller's names for them."""

    table: Table
    columns: Mapping[str, Column[Any]]
    #: Written by the mapper itself: which class of a hierarchy a row is.
    constants: Mapping[Column[Any], Any]

    @classmethod
    def of(cls, target: type[Any] | Table) -> Target:
        """Raises LoadError for what is neither."""
        if isinstance(target, Table):
            return cls(target, dict(target.columns.items()), {})
        mapper = inspect(target, raiseerr=False)
        if not isinstance(mapper, Mapper):
            raise LoadError(f"rows are loaded into a mapped class or a Table, not {target!r}")
        if len(mapper.tables) != 1 or not isinstance(mapper.local_table, Table):
            spread = ", ".join(str(table) for table in mapper.tables)
            raise LoadError(f"{mapper.class_.__name__} lies in {spread}: load each Table by itself")
        columns = {p.key: p.columns[0] for p in mapper.column_attrs if isinstance(p.columns[0], Column)}
        kind = mapper.polymorphic_on
        constants = {kind: mapper.polymorphic_identity} if isinstance(kind, Column) else {}
        return cls(mapper.local_table, columns, constants)

    def column(self, key: Any) -> Column[Any]:
        """The column of a key: its name here, or the attribute or column itself."""
        name = key if isinstance(key, str) else getattr(key, "key", key)
        try:
            return self.columns[name]
        except (KeyError, TypeError):
            raise LoadError(f"{self.table} has no {key!r} to load: it has {', '.join(self.columns)}") from None


@dataclass(frozen=True, slots=True)
class CopyColumn:
    """One column of a COPY. ``make`` gives the value of a row that brings none."""

    column: Column[Any]
    packer: Packer
    process: Callable[[Any], Any] | None
    make: Callable[[], Any] | None

    def pack(self, values: Sequence[Any], where: Where) -> Field:
        """A chunk's values of this column, packed."""
        if self.process is not None:
            values = self._processed(self.process, values, where)
        return pack_column(self.packer, values, where)

    @staticmethod
    def _processed(process: Callable[[Any], Any], values: Sequence[Any], where: Where) -> list[Any]:
        processed = []
        for at, value in enumerate(values):
            try:
                processed.append(None if value is None else process(value))
            except Exception as error:  # a type of the user's may raise anything
                raise LoadError(
                    f"{where(at)} is {shorten(repr(value), 60)}, which its type refuses: {error}"
                ) from error
        return processed


def copy_columns(connection: Connection, target: Target, given: Sequence[Column[Any]]) -> list[CopyColumn]:
    """The given columns, and then those with a default of Python's that were left out."""
    table = target.table
    described = {row.name: row for row in connection.execute(_TYPES, {"name": _qualified(connection, table)})}
    if not described:
        raise LoadError(f"there is no table {table} in the database: create it first")
    copied = []
    for column in table.columns:
        row = described.get(column.name)
        if row is None:
            if column in given:
                raise LoadError(f"{table}.{column.name} is not in the database: migrate it first")
            continue
        make = None if column in given else _maker(target, column)
        if column in given and row.generated:
            raise LoadError(f"{table}.{column.name} is generated by Postgres: leave it out")
        if column not in given and make is None:
            if row.required:
                raise LoadError(f"{table}.{column.name} is NOT NULL and has no default: give it for every row")
            continue
        context = None if connection.dialect.driver == "asyncpg" else connection.connection.driver_connection
        packer = packer_of(row.send, row.oid, row.modifier if row.modifier > 0 else None, context)
        if packer is None:
            raise LoadError(
                f"{table}.{column.name} is of type {row.type}, for which there is no binary form here: "
                "load the rows with session.add_all"
            )
        process = None if row.send in PACKED_SENDS else _processor(connection, column)
        copied.append(CopyColumn(column, packer, process, make))
    order = {column: number for number, column in enumerate(given)}
    return sorted(copied, key=lambda copy: order.get(copy.column, len(order)))


def _qualified(connection: Connection, table: Table) -> str:
    quote = connection.dialect.identifier_preparer.quote
    schema = connection.schema_for_object(table)
    return f"{quote(schema)}.{quote(table.name)}" if schema else quote(table.name)


def _maker(target: Target, column: Column[Any]) -> Callable[[], Any] | None:
    """What makes the values of a column that was left out; None leaves it to the database."""
    if column in target.constants:
        return lambda: target.constants[column]
    if column.default is None:
        return None
    if insert_default(column) is UNREADABLE:
        raise LoadError(
            f"{target.table}.{column.name} has a default that only SQLAlchemy's INSERT can make: give it for every row"
        )
    return partial(insert_default, column)


def _processor(connection: Connection, column: Column[Any]) -> Callable[[Any], Any] | None:
    if isinstance(column.type, _PLAIN):
        return None
    return column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
