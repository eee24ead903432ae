"""Running a statement as it stands, or writing it into the script of ``alembic upgrade --sql``."""

from __future__ import annotations

import logging
from typing import Any, Final

from alembic.operations.base import Operations
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import Connection

from embeddb.catalog.errors import own_errors
from embeddb.errors import EmbeddbError

#: Under Alembic's own logger, which its alembic.ini shows; fileConfig there disables loggers that it does not know.
log: Final = logging.getLogger("alembic.embeddb")


def run(operations: Operations, statement: str) -> None:
    """Execute a statement without parameters. Neither % nor : in it means anything.

    What the catalog refuses is a CommandError, which ``alembic`` tells in a line instead of a traceback.
    """
    context = operations.get_context()
    if context.as_sql:
        context.impl.static_output(f"{statement.strip()};\n")
        return
    try:
        with own_errors():
            connection_of(operations).exec_driver_sql(statement, execution_options={"no_parameters": True})
    except EmbeddbError as error:
        raise CommandError(str(error)) from error


def connection_of(operations: Operations) -> Connection:
    """The connection of a migration that runs."""
    connection = operations.get_bind()
    assert isinstance(connection, Connection)
    return connection


def call(function: str, *arguments: Any) -> str:
    """``SELECT embeddb.function(…)`` with these values as literals."""
    parts = [sql.SQL("{}").format(argument) for argument in arguments]
    call = sql.SQL("SELECT {}({})").format(sql.Identifier("embeddb", function), sql.SQL(", ").join(parts))
    return call.as_string(None)


def qualified(table: str, schema: str | None) -> str:
    """A table's name with its schema, quoted."""
    return place(table, schema).as_string(None)


def place(name: str, schema: str | None) -> sql.Identifier:
    """A table's or index's name with its schema, to compose SQL of."""
    return sql.Identifier(*([schema] if schema else []), name)
