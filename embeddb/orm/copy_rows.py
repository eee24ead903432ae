"""COPY's binary format, made from packed columns.

A row is its number of fields, and for each field the length of its bytes and the bytes, or a length of -1 for NULL.
See "Binary Format" in https://www.postgresql.org/docs/current/sql-copy.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_COUNT: Final = np.dtype(">i2")
_SIZE: Final = np.dtype(">i4")
_LENGTH: Final = struct.Struct(">i").pack
_NULL: Final = _LENGTH(-1)

#: Parts of a field: what each is on the wire, and its values, or one value that all rows share.
Parts = tuple[tuple[np.dtype[Any], Any], ...]
#: Names the value at a position of a column, for an error.
Where = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A column whose fields are all of one length, none of them NULL."""

    parts: Parts

    def prefixed(self) -> Parts:
        """With the length in front."""
        return ((_SIZE, sum(dtype.itemsize for dtype, _ in self.parts)), *self.parts)


#: A packed column: of one length, or each field's bytes, None for NULL.
Field = Fixed | list[bytes | None]
#: Packs a column without NULLs.
Packer = Callable[[Sequence[Any], Where], Field]


def pack_rows(fields: Sequence[Field], count: int) -> bytes:
    """``count`` rows of these columns. Neighbours of fixed length become one structured array."""
    pieces: list[list[bytes]] = []
    parts: Parts = ((_COUNT, len(fields)),)
    for field in fields:
        if isinstance(field, Fixed):
            parts += field.prefixed()
        else:
            if parts:
                pieces.append(_structured(parts, count))
            pieces.append([_NULL if data is None else _LENGTH(len(data)) + data for data in field])
            parts = ()
    if not pieces:
        return _array(parts, count).tobytes()
    if parts:
        pieces.append(_structured(parts, count))
    rows = [b""] * (count * len(pieces))
    for number, piece in enumerate(pieces):
        rows[number :: len(pieces)] = piece
    return b"".join(rows)


def pack_column(packer: Packer, values: Sequence[Any], where: Where) -> Field:
    """A column that may hold None (or NaT), which is NULL. Raises LoadError or VectorError, naming the value."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "mM":
        present = np.flatnonzero(~np.isnat(values)).tolist()
    elif isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return packer(values, where)
    else:
        present = [position for position, value in enumerate(values) if value is not None]
    if len(present) == len(values):
        return packer(values, where)
    if not present:
        return [None] * len(values)
    packed = packer([values[position] for position in present], lambda position: where(present[position]))
    data = _structured(packed.parts, len(present)) if isinstance(packed, Fixed) else packed
    column: list[bytes | None] = [None] * len(values)
    for position, field in zip(present, data, strict=True):
        column[position] = field
    return column


def _array(parts: Parts, count: int) -> np.ndarray[Any, Any]:
    array = np.empty(count, [(f"f{number}", dtype) for number, (dtype, _) in enumerate(parts)])
    for number, (_, values) in enumerate(parts):
        array[f"f{number}"] = values
    return array


def _structured(parts: Parts, count: int) -> list[bytes]:
    array = _array(parts, count)
    fields: list[bytes] = array.view(f"V{array.dtype.itemsize}").tolist()
    return fields
