"""Vector indexes: those of the models beside those of the database, told apart by Postgres itself.

An expression has many spellings. So a declared index is built on an empty copy of its table, and what Postgres makes of
it is compared with what Postgres says of the index that is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Final

from alembic.operations import MigrateOperation
from sqlalchemy import Column, Connection, Index, Table, column
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.elements import ClauseElement, Label

from embeddb.migrate.filters import Filters
from embeddb.migrate.found import FoundIndex, Signature, is_partitioned, read_indexes
from embeddb.migrate.index_operations import (
    CreateVectorIndexOp,
    DropVectorIndexOp,
    RenameVectorIndexOp,
    ReplaceVectorIndexOp,
    VectorIndex,
)
from embeddb.orm import Declaration
from embeddb.orm.index_expression import indexed

_COPY: Final = "embeddb_copy"
METHODS: Final = ("hnsw", "ivfflat")


def is_vector_index(index: Index) -> bool:
    """Is this index of the models, or one that was reflected, HNSW or IVFFlat?"""
    return index.dialect_options["postgresql"]["using"] in METHODS


def described(index: Index, dialect: PGDialect, *, concurrently: bool = False) -> VectorIndex | None:
    """An index of the models as an operation takes it; None where it names no operator class."""
    options = index.dialect_options["postgresql"]
    [expression, *_] = index.expressions
    key = getattr(expression, "key", None)
    if isinstance(expression, Label):
        expression = expression.element
    opclass = (options["ops"] or {}).get(key) or next(iter((options["ops"] or {}).values()), None)
    table = index.table
    if opclass is None or table is None:
        return None
    is_column = isinstance(expression, Column)
    return VectorIndex(
        name=str(index.name),
        table=table.name,
        column=expression.name if is_column else _column_of(expression),  # type: ignore[union-attr]
        method=options["using"],
        opclass=opclass,
        expression=None if is_column else f"({sql_of(expression, dialect)})",
        options=dict(options["with"] or {}),
        where=None if options["where"] is None else sql_of(options["where"], dialect),
        schema=table.schema,
        concurrently=concurrently,
    )


def of_database(index: FoundIndex, schema: str | None, table: str, *, concurrently: bool = False) -> VectorIndex:
    """An index of the database as an operation takes it."""
    signature = index.signature
    options = dict(option.split("=", 1) for option in index.options)
    return VectorIndex(
        name=index.name,
        table=table,
        column=index.column,
        method=signature.method,
        opclass=signature.opclasses[0],
        expression=f"({signature.expressions[0]})" if index.is_expression else None,
        options={name: int(value) if value.isdigit() else value for name, value in options.items()},
        where=signature.where,
        schema=schema,
        concurrently=concurrently,
    )


def shadow_indexes(declaration: Declaration, dialect: PGDialect, *, concurrently: bool) -> Iterator[VectorIndex]:
    """The declared indexes for the second column that a change of encoder adds."""
    aside = f"{declaration.column.name}__next"
    for index in declaration.table.indexes:
        given = described(index, dialect, concurrently=concurrently) if is_vector_index(index) else None
        if given is None or given.column != declaration.column.name:
            continue
        expression = None
        if given.expression is not None:
            shadow = indexed(column(aside, declaration.column.type), declaration.settings)
            expression = f"({sql_of(shadow, dialect)})"
        yield replace(given, name=f"{given.name}__next", column=aside, expression=expression)


def compare_indexes(
    connection: Connection,
    table: Table,
    filters: Filters,
    *,
    skip: Collection[str] = (),
    retyped: Collection[str] = (),
    concurrently: bool = False,
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """What to do before a table's columns change, and after, for a table that is in the database.

    ``skip``: columns to leave alone. An index that only the name of its table or column has changed under is renamed.
    ``retyped``: columns that get another type, and have no index meanwhile. Of the others, what is there serves until
    what is declared is built, if that is done concurrently.
    """
    dialect: Any = connection.dialect
    present = read_indexes(connection, table.schema, table.name)
    concurrently = concurrently and not is_partitioned(connection, table.schema, table.name)
    stays = {column.name for column in table.columns}.difference(retyped) if concurrently else set()
    before: list[MigrateOperation] = []
    after: list[MigrateOperation] = []
    missing: list[tuple[Index, VectorIndex]] = []
    for name, index in sorted((str(index.name), index) for index in table.indexes if is_vector_index(index)):
        given = described(index, dialect, concurrently=concurrently)
        if given is None or given.column in skip or not filters.has_index(index):
            present.pop(name, None)
            continue
        found = present.pop(name, None)
        if found is None:
            missing.append((index, given))
            continue
        made = _on_copy(connection, table, index)
        if found.valid and made == found.signature:
            continue
        there = of_database(found, table.schema, table.name, concurrently=concurrently)
        if found.valid and made is not None and found.column == given.column and found.column in stays:
            after.append(ReplaceVectorIndexOp(given, there))
        else:
            before.append(DropVectorIndexOp(there))
            after.append(CreateVectorIndexOp(given))
    left = [
        found
        for found in present.values()
        if found.column not in skip and filters.has_found(found, table.schema, table.name)
    ]
    for index, given in missing:
        made = _on_copy(connection, table, index) if left else None
        alike = next((found for found in left if found.valid and found.signature == made), None)
        if alike is None:
            after.append(CreateVectorIndexOp(given))
        else:
            left.remove(alike)
            after.append(RenameVectorIndexOp(alike.name, given.name, table.schema))
    for found in left:
        gone = DropVectorIndexOp(of_database(found, table.schema, table.name, concurrently=concurrently))
        (after if found.valid and found.column in stays else before).append(gone)
    return before, after


def _on_copy(connection: Connection, table: Table, index: Index) -> Signature | None:
    """What Postgres makes of an index; None where it cannot be made on the table as it is."""
    prepare = connection.dialect.identifier_preparer
    place = prepare.format_table(table)
    create = str(CreateIndex(index).compile(dialect=connection.dialect))
    create = create.replace(f" ON {place} ", f" ON pg_temp.{_COPY} ", 1).replace("CONCURRENTLY ", "", 1)
    with connection.begin_nested() as savepoint:
        try:
            for statement in (
                "SET LOCAL client_min_messages = error",
                f"CREATE TEMPORARY TABLE {_COPY} (LIKE {place})",
                create,
            ):
                connection.exec_driver_sql(statement)
            made = read_indexes(connection, "pg_temp", _COPY)
            return next(iter(made.values())).signature
        except DBAPIError:
            return None
        finally:
            savepoint.rollback()


def sql_of(expression: ClauseElement | str, dialect: PGDialect) -> str:
    """An expression over one table as SQL, without the table's name."""
    if isinstance(expression, str):
        return expression
    compiler = dialect.ddl_compiler(dialect, None).sql_compiler  # type: ignore[arg-type]
    compiled = compiler.process(expression, include_table=False, literal_binds=True)
    # Operations run their SQL without parameters, where a driver takes no percent sign for one.
    return compiled.replace("%%", "%") if dialect.identifier_preparer._double_percents else compiled


def _column_of(expression: Any) -> str:
    """The first column in an expression; of an expression that is text, no one knows."""
    from sqlalchemy.sql.visitors import iterate

    return next((str(part.name) for part in iterate(expression) if isinstance(part, Column)), "")
