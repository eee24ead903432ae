"""``COPY … FROM STDIN`` as an SQLAlchemy statement, fed from chunks of COPY's binary format.

Being a statement, it takes part in the connection's transaction, logging and events, and its errors are SQLAlchemy's.
The driver's own COPY takes the place of the execution, in a listener on the one dialect that runs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import ClauseElement, Column, Connection, Dialect, Executable, Table, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util.concurrency import await_only

from embeddb.errors import LoadError
from embeddb.orm.copy_rows import SIGNATURE, TRAILER


class CopyFrom(Executable, ClauseElement):
    """Load ``chunks`` of rows into ``columns`` of ``table``. Can be executed once; then ``loaded`` counts the rows."""

    inherit_cache = False

    def __init__(self, table: Table, columns: Sequence[Column[Any]], chunks: Iterable[bytes]) -> None:
        self.table = table
        self.columns = columns
        self.chunks = chunks
        self.loaded = 0


@compiles(CopyFrom)
def _compile_copy(element: CopyFrom, compiler: SQLCompiler, **options: Any) -> str:
    preparer = compiler.preparer
    columns = ", ".join(preparer.format_column(column) for column in element.columns)
    return f"COPY {preparer.format_table(element.table)} ({columns}) FROM STDIN (FORMAT binary)"


def check_driver(dialect: Dialect) -> None:
    """Raise LoadError where the driver has no COPY that this module knows."""
    if dialect.driver not in ("psycopg", "psycopg_async", "asyncpg"):
        raise LoadError(
            f"COPY needs the driver psycopg or asyncpg, and this engine has {dialect.driver}: "
            "make one with postgresql+psycopg:// in its URL"
        )


def copy_from(connection: Connection, element: CopyFrom) -> int:
    """Run it, and return how many rows the table took: a trigger may have made them fewer than were sent."""
    if not event.contains(connection.dialect, "do_execute", _do_execute):
        event.listen(connection.dialect, "do_execute", _do_execute)
    connection.execute(element)
    return element.loaded


def _do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    element = context.compiled.statement if context is not None and context.compiled is not None else None
    if not isinstance(element, CopyFrom):
        return False
    chunks = chain((SIGNATURE,), element.chunks, (TRAILER,))
    dialect: Dialect = context.dialect
    if dialect.driver == "asyncpg":
        driver = context.root_connection.connection.driver_connection
        status = await_only(
            driver.copy_to_table(
                element.table.name,
                schema_name=context.root_connection.schema_for_object(element.table),
                columns=[column.name for column in element.columns],
                source=_asynchronous(chunks),
                format="binary",
            )
        )
        element.loaded = int(status.split()[-1])
    elif dialect.is_async:
        await_only(_copy_async(cursor._cursor, statement, chunks))
        element.loaded = cursor._cursor.rowcount
    else:
        with cursor.copy(statement) as copy:
            for chunk in chunks:
                copy.write(chunk)
        element.loaded = cursor.rowcount
    return True


async def _copy_async(cursor: Any, statement: str, chunks: Iterator[bytes]) -> None:
    async with cursor.copy(statement) as copy:
        for chunk in chunks:
            await copy.write(chunk)


async def _asynchronous(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
