"""Many vectors as one parameter: an array of pgvector's type in Postgres's binary format, built by numpy."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

import numpy as np
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from embeddb.metrics import Storage
from embeddb.vectors.wire import ELEMENT, Vector, pack

# array_send: dimensions, "has NULLs", the element's type; then per dimension its length and lower bound.
# https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c
_HEADER: Final = struct.Struct(">iiIii")
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)


@dataclass(frozen=True, slots=True)
class VectorArray:
    """A ``vector[]`` or ``halfvec[]``, ready to send."""

    data: bytes

    @classmethod
    def of(cls, vectors: Sequence[Vector | None], storage: Storage, element: int) -> Self:
        """From vectors of shape (dim,), None for NULL. ``element`` is the vector type's oid."""
        header = _HEADER.pack(1, 1, element, len(vectors), 1) if vectors else struct.pack(">iiI", 0, 0, element)
        if any(vector is None for vector in vectors):
            return cls(header + b"".join(map(_element, vectors, [storage] * len(vectors))))
        matrix = np.asarray(vectors)
        size = 4 + matrix.shape[-1] * ELEMENT[storage].itemsize
        record = np.dtype(
            [("size", ">i4"), ("dim", ">u2"), ("zero", ">u2"), ("values", ELEMENT[storage], (matrix.shape[-1],))]
        )
        rows = np.zeros(len(vectors), record)
        rows["size"], rows["dim"], rows["values"] = size, matrix.shape[-1], matrix
        return cls(header + rows.tobytes())


def _element(vector: Vector | None, storage: Storage) -> bytes:
    if vector is None:
        return _NULL
    data = pack(vector, storage)
    return _LENGTH.pack(len(data)) + data


class _VectorArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: VectorArray) -> Buffer | None:
        return obj.data


@cache
def dumper(array: int) -> type[Dumper]:
    """The dumper that sends a VectorArray as it is, under the array type of that oid."""
    return type("VectorArrayDumper", (_VectorArrayDumper,), {"oid": array})
