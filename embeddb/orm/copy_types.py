"""How a column of Python values is packed for COPY, type by type.

A type is known by the name of its send function, which domains share with their base types and which says what the
bytes are. Types without a packer here are left to psycopg's dumpers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from numbers import Integral, Real
from textwrap import shorten
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np

from embeddb.errors import LoadError
from embeddb.metrics import Storage
from embeddb.orm.copy_rows import Field, Fixed, Packer, Where
from embeddb.vectors import as_vector, check_vectors, pack
from embeddb.vectors.bits import pack_bits
from embeddb.vectors.wire import ELEMENT

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext

_UINT2, _INT2, _INT4, _INT8 = (np.dtype(code) for code in (">u2", ">i2", ">i4", ">i8"))
_EPOCH: Final = np.datetime64("2000-01-01", "us")

#: The send functions of pgvector's types.
VECTOR_SENDS: Final[Mapping[str | None, Storage]] = MappingProxyType(
    {"vector_send": "vector", "halfvec_send": "halfvec"}
)
#: Types whose values are packed as they are given, whatever type of SQLAlchemy's the column was declared with.
PACKED_SENDS: Final = frozenset({*VECTOR_SENDS, "bit_send"})


def packer_of(send: str | None, oid: int, dim: int | None, context: AdaptContext | None) -> Packer | None:
    """The packer for the type with this send function and oid; None where there is no binary form for it.

    ``dim``: a vector column's dimensions, or a number of bits. ``context``: psycopg's connection, or None with another
    driver.
    """
    if send in VECTOR_SENDS:
        return _vectors(VECTOR_SENDS[send], dim)
    if send == "bit_send" and dim is not None:
        return _bits(dim)
    if send in _TEXTS:
        connection = context.connection if context else None
        return _texts(connection.info.encoding if connection else "utf-8")
    return _FIXED.get(send or "") or _adapted(oid, context, _JSON.get(send))


def _vectors(storage: Storage, dim: int | None) -> Packer:
    """For ``vector`` or ``halfvec``: arrays of shape (n, dim), or sequences of anything that ``as_vector`` takes."""
    element = ELEMENT[storage]

    def packer(values: Sequence[Any], where: Where) -> Field:
        matrix = _matrix(values)
        if matrix is None:
            given = [as_vector(value, dim, storage=storage, what=where(at)) for at, value in enumerate(values)]
            if len({len(vector) for vector in given}) > 1:  # into a column of any dimensions
                return [pack(vector, storage) for vector in given]
            matrix = np.stack(given)
        checked = check_vectors(matrix, dim, storage=storage, where=where)
        width = checked.shape[1]
        return Fixed(((_UINT2, width), (_UINT2, 0), (np.dtype((element, (width,))), checked)))

    return packer


def _matrix(values: Sequence[Any]) -> np.ndarray[Any, Any] | None:
    """The vectors as one array without a Python step for each, where they are arrays of one shape."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return values
    if set(map(type, values)) != {np.ndarray} or len({(value.shape, value.dtype) for value in values}) != 1:
        return None
    return np.concatenate(values).reshape(len(values), -1) if values[0].ndim == 1 else None


def _bits(length: int) -> Packer:
    """For ``bit(length)``: bool arrays of shape (n, length), or sequences of anything that ``as_bits`` takes."""

    def packer(values: Sequence[Any], where: Where) -> Field:
        packed = pack_bits(values, length, where)
        return Fixed(((_INT4, length), (np.dtype((np.uint8, (packed.shape[1],))), packed)))

    return packer


def _integers(wire: np.dtype[Any]) -> Packer:
    lowest, highest = int(np.iinfo(wire).min), int(np.iinfo(wire).max)
    wanted = f"an integer from {lowest} to {highest}"

    def fits(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and lowest <= int(value) <= highest

    def packer(values: Sequence[Any], where: Where) -> Field:
        array = _numbers(values, "iu", where, wanted, fits)
        if array.size and not (lowest <= int(array.min()) and int(array.max()) <= highest):
            _require(values, fits, where, wanted)
        return Fixed(((wire, array),))

    return packer


def _floats(wire: np.dtype[Any]) -> Packer:
    def packer(values: Sequence[Any], where: Where) -> Field:
        array = _numbers(values, "iuf", where, "a number", _is_number)
        with np.errstate(over="ignore"):
            narrowed = array.astype(wire)
        beyond = np.flatnonzero(np.isinf(narrowed) & np.isfinite(array))
        if beyond.size:
            raise LoadError(f"{where(int(beyond[0]))} is {array[beyond[0]]}, which is beyond its column of type real")
        return Fixed(((wire, narrowed),))

    return packer


def _booleans(values: Sequence[Any], where: Where) -> Field:
    array = _numbers(values, "b", where, "True or False", lambda value: isinstance(value, bool | np.bool_))
    return Fixed(((np.dtype("?"), array),))


def _numbers(
    values: Sequence[Any], kinds: str, where: Where, wanted: str, fits: Callable[[Any], bool]
) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except ValueError:  # sequences of unequal length
        array = np.empty((0, 0))
    if array.dtype.kind not in kinds or array.ndim != 1:
        _require(values, fits, where, wanted)
        raise LoadError(f"{where(0)} and those after it are beyond the numbers that a column takes: give {wanted}")
    return array


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _uuids(values: Sequence[Any], where: Where) -> Field:
    _require(values, lambda value: isinstance(value, UUID), where, "a uuid.UUID")
    return Fixed(((np.dtype("V16"), np.frombuffer(b"".join([value.bytes for value in values]), "V16")),))


def _timestamps(zoned: bool) -> Packer:
    wanted = f"a datetime {'with' if zoned else 'without'} tzinfo"

    def packer(values: Sequence[Any], where: Where) -> Field:
        if not _is_moments(values):
            _require(values, lambda v: isinstance(v, datetime) and (v.tzinfo is not None) is zoned, where, wanted)
            values = [value.astimezone(UTC).replace(tzinfo=None) for value in values] if zoned else values
        # numpy's own datetimes have no zone, and are taken for UTC.
        return Fixed(((_INT8, (np.asarray(values, "datetime64[us]") - _EPOCH).astype(np.int64)),))

    return packer


def _dates(values: Sequence[Any], where: Where) -> Field:
    if not _is_moments(values):
        _require(values, lambda v: isinstance(v, date) and not isinstance(v, datetime), where, "a date")
    days = np.asarray(values, "datetime64[D]") - _EPOCH.astype("datetime64[D]")
    return Fixed(((_INT4, days.astype(np.int64)),))


def _is_moments(values: Sequence[Any]) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind == "M"


def _texts(encoding: str) -> Packer:
    def packer(values: Sequence[Any], where: Where) -> Field:
        _require(values, lambda value: isinstance(value, str), where, "a string")
        try:
            packed: list[bytes | None] = [value.encode(encoding) for value in values]
        except UnicodeEncodeError as error:
            at = next(at for at, value in enumerate(values) if value is error.object)
            raise LoadError(f"{where(at)} cannot be written in the connection's encoding: {error}") from None
        for at, value in enumerate(values):
            if "\0" in value:
                raise LoadError(f"{where(at)} holds a NUL character, for which Postgres has no place: take it out")
        return packed

    return packer


def _bytes(values: Sequence[Any], where: Where) -> Field:
    _require(values, lambda value: isinstance(value, bytes | bytearray | memoryview), where, "bytes")
    return [bytes(value) for value in values]


def _adapted(oid: int, context: AdaptContext | None, json: bytes | None) -> Packer | None:
    """psycopg's own dumpers, value by value: decimals, intervals, ranges, JSON, arrays of them all.

    ``json``: what goes in front of JSON that is text already, which asyncpg's JSON types make of a value.
    """
    from psycopg import ProgrammingError  # not above, because it is slow to import
    from psycopg.adapt import PyFormat, Transformer
    from psycopg.pq import Format

    transformer = Transformer(context)
    try:
        transformer.set_dumper_types([oid], Format.BINARY)
    except ProgrammingError:
        return None

    def dump(value: Any) -> bytes:
        if json is not None and isinstance(value, str):
            return json + value.encode()
        (data,) = transformer.dump_sequence([value], [PyFormat.BINARY])
        return bytes(data or b"")

    def packer(values: Sequence[Any], where: Where) -> Field:
        packed: list[bytes | None] = []
        for at, value in enumerate(values):
            try:
                packed.append(dump(value))
            except Exception as error:  # a dumper raises whatever the value makes it raise
                raise LoadError(f"{where(at)} is {_shown(value)}, which its column does not take: {error}") from error
        return packed

    return packer


def _require(values: Sequence[Any], fits: Callable[[Any], bool], where: Where, wanted: str) -> None:
    for at, value in enumerate(values):
        if not fits(value):
            raise LoadError(f"{where(at)} is {_shown(value)}: give {wanted}")


def _shown(value: Any) -> str:
    return f"{shorten(repr(value), 60)}, of type {type(value).__name__}"


_FIXED: Final[Mapping[str, Packer]] = MappingProxyType(
    {
        "int2send": _integers(_INT2),
        "int4send": _integers(_INT4),
        "int8send": _integers(_INT8),
        "float4send": _floats(np.dtype(">f4")),
        "float8send": _floats(np.dtype(">f8")),
        "boolsend": _booleans,
        "uuid_send": _uuids,
        "timestamp_send": _timestamps(zoned=False),
        "timestamptz_send": _timestamps(zoned=True),
        "date_send": _dates,
        "byteasend": _bytes,
    }
)
# enum_send and citext's send the label or the text, as textsend does.
_TEXTS: Final = frozenset({"textsend", "varcharsend", "bpcharsend", "namesend", "enum_send", "citextsend"})
#: The version that jsonb has in front of its text.
_JSON: Final[Mapping[str | None, bytes]] = MappingProxyType({"json_send": b"", "jsonb_send": b"\x01"})
