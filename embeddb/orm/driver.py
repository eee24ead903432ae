"""What a vector becomes on its way to the server, driver by driver.

psycopg sends the binary form. asyncpg sends an array of floats in binary, of which Postgres makes a vector. Every
other driver sends text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from embeddb.metrics import Storage
from embeddb.vectors import Vector, to_text


class Driver:
    """A driver that knows nothing of vectors."""

    #: SQL types that a parameter is cast to, in turn, before the vector's own.
    via: tuple[str, ...] = ()

    def prepare(self, dialect: Dialect) -> None:
        """Called as soon as an engine is known to send or to read vectors."""

    def sender(self, storage: Storage) -> Callable[[Vector], Any]:
        """The function from a vector to a parameter."""
        return to_text

    def literal(self, vector: Vector) -> str:
        """An SQL literal, cast like a parameter."""
        return f"'{to_text(vector)}'"


class _Asyncpg(Driver):
    via = ("real[]",)

    def sender(self, storage: Storage) -> Callable[[Vector], Any]:
        return lambda vector: vector.tolist()

    def literal(self, vector: Vector) -> str:
        return "'{" + to_text(vector)[1:-1] + "}'"


class _Psycopg(Driver):
    # psycopg is imported here, and not above, because it takes long and only its own dialect needs it.

    def prepare(self, dialect: Dialect) -> None:
        from embeddb.orm.binary import prepare

        prepare(dialect)

    def sender(self, storage: Storage) -> Callable[[Vector], Any]:
        from embeddb.orm.binary import VectorParameter

        return partial(VectorParameter, storage=storage)


_TEXT: Final = Driver()
_DRIVERS: Final[Mapping[str, Driver]] = {"psycopg": _Psycopg(), "psycopg_async": _Psycopg(), "asyncpg": _Asyncpg()}


def driver_of(dialect: Dialect) -> Driver:
    """How vectors travel with this dialect's driver."""
    # The dialect of str(statement) has none.
    return _DRIVERS.get(getattr(dialect, "driver", ""), _TEXT)


class Received(ColumnElement[Vector]):
    """A parameter that the server is to take for a vector: ``$1::vector``."""

    inherit_cache = False  # it comes into being when a statement is compiled, after its cache key

    def __init__(self, parameter: BindParameter[Vector], storage: Storage) -> None:
        self.parameter = parameter
        self.storage = storage
        self.type = parameter.type


@compiles(Received)
def _compile_received(element: Received, compiler: SQLCompiler, **options: Any) -> str:
    casts = (*driver_of(compiler.dialect).via, element.storage)
    return "::".join((compiler.process(element.parameter, **options), *casts))
