"""Rows of vectors into the catalog's tables, by COPY in binary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection as DriverConnection
from psycopg import sql
from sqlalchemy import Connection

from embeddb.errors import CatalogError
from embeddb.orm.copy_rows import SIGNATURE, TRAILER, Field, Fixed, pack_rows
from embeddb.vectors.wire import ELEMENT

_INT2, _INT4, _BOOL = np.dtype(">i2"), np.dtype(">i4"), np.dtype("?")
#: Rows of a COPY message.
_AT_ONCE: Final = 2000


def driver(connection: Connection) -> DriverConnection[Any]:
    """The psycopg connection below. Raises CatalogError for another driver, and for a database not in UTF-8."""
    found = connection.connection.driver_connection
    if not isinstance(found, DriverConnection):
        raise CatalogError(
            f"installing an encoder needs psycopg's COPY, and this connection is of {connection.dialect.driver}: "
            "use an engine of postgresql+psycopg://"
        )
    if found.info.parameter_status("server_encoding") != "UTF8":
        raise CatalogError("encoders in SQL need a database in UTF8")
    return found


def smallint(value: int | NDArray[np.int64]) -> Field:
    """A column of smallint: one value for all rows, or one each."""
    return Fixed(((_INT2, value),))


def integer(value: int | NDArray[np.int64]) -> Field:
    """A column of integer."""
    return Fixed(((_INT4, value),))


def boolean(values: Sequence[bool]) -> Field:
    """A column of boolean."""
    return Fixed(((_BOOL, np.asarray(values)),))


def texts(values: Sequence[str | None]) -> Field:
    """A column of text."""
    return [None if value is None else value.encode() for value in values]


def vectors(matrix: NDArray[Any], halves: bool) -> Field:
    """A column of vector or halfvec, from (rows, dim)."""
    element = ELEMENT["halfvec" if halves else "vector"]
    return Fixed(((_INT2, matrix.shape[1]), (_INT2, 0), (np.dtype((element, (matrix.shape[1],))), matrix)))


def pages(matrix: NDArray[Any], per_row: int, oid: int, halves: bool) -> list[bytes | None]:
    """A column of arrays of ``per_row`` vectors each, from (rows, dim): Postgres's binary form of an array."""
    element = ELEMENT["halfvec" if halves else "vector"]
    vector = np.dtype([("size", _INT4), ("dim", _INT2), ("zero", _INT2), ("v", element, (matrix.shape[1],))])
    packed = np.zeros(len(matrix), vector)
    packed["size"], packed["dim"], packed["v"] = vector.itemsize - 4, matrix.shape[1], matrix
    fields: list[bytes | None] = []
    for start in range(0, len(packed), per_row):
        some = packed[start : start + per_row]
        # Dimensions, whether there are NULLs, the elements' type, their number, the first index.
        fields.append(np.array([1, 0, oid, len(some), 1], _INT4).tobytes() + some.tobytes())
    return fields


def copy(driver: DriverConnection[Any], table: LiteralString, columns: Sequence[str], rows: Iterator[bytes]) -> None:
    """Rows, packed as COPY's binary format has them, into a table of the catalog."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)").format(
        sql.Identifier("embeddb", table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver.cursor().copy(statement) as stream:
        stream.write(SIGNATURE)
        for packed in rows:
            stream.write(packed)
        stream.write(TRAILER)


def in_batches(fields: Sequence[Field | NDArray[Any]], count: int) -> Iterator[bytes]:
    """Rows in messages of a few megabytes at most; a field's list or array is cut along."""
    for start in range(0, count, _AT_ONCE):
        stop = min(start + _AT_ONCE, count)
        yield pack_rows([_cut(field, start, stop) for field in fields], stop - start)


def _cut(field: Any, start: int, stop: int) -> Field:
    if isinstance(field, Fixed):
        return Fixed(
            tuple((kind, v[start:stop] if isinstance(v, np.ndarray) and v.ndim else v) for kind, v in field.parts)
        )
    return list(field[start:stop])
