"""pgvector's binary format, which is what its send and receive functions speak.

A vector is its number of dimensions and a reserved zero, two bytes each, and then its elements, all big-endian:
float4 for ``vector``, IEEE 754 half precision for ``halfvec``.
See ``vector_recv`` and ``halfvec_recv`` in https://github.com/pgvector/pgvector/tree/master/src.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embeddb.errors import VectorError
from embeddb.metrics import Storage

#: One vector: shape (dim,), float32.
Vector = npt.NDArray[np.float32]

#: How each storage writes an element.
ELEMENT: Final[Mapping[Storage, np.dtype[Any]]] = MappingProxyType(
    {"vector": np.dtype(">f4"), "halfvec": np.dtype(">f2")}
)

HEADER: Final = struct.Struct(">HH")


def pack(vector: Vector, storage: Storage = "vector") -> bytes:
    """The binary form of ``vector``, of shape (dim,); halves round to the nearest."""
    return HEADER.pack(len(vector), 0) + vector.astype(ELEMENT[storage]).tobytes()


def unpack(data: bytes | bytearray | memoryview, storage: Storage = "vector") -> Vector:
    """The vector of a binary form: shape (dim,), float32 in native order, read-only.

    Raises VectorError where ``data`` is not a vector of that storage.
    """
    element = ELEMENT[storage]
    try:
        dim, reserved = HEADER.unpack_from(data)
    except struct.error:
        dim = reserved = -1
    size = memoryview(data).nbytes
    if reserved != 0 or size != HEADER.size + dim * element.itemsize:
        raise VectorError(f"these {size} bytes are not a {storage} in pgvector's binary format")
    vector = np.frombuffer(data, element, dim, HEADER.size).astype(np.float32)
    vector.setflags(write=False)
    return vector


def to_text(vector: Vector) -> str:
    """The text form, ``[1.0,2.5]``, with enough digits to read the same float32 back."""
    return str(vector.tolist()).replace(" ", "")


def from_text(text: str) -> Vector:
    """The vector of a text form: shape (dim,), float32, read-only. Raises VectorError where it is none."""
    try:
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError
        vector = np.array(text[1:-1].split(","), dtype=np.float32)
    except ValueError:
        raise VectorError(f"{text[:40]!r} is not a vector in pgvector's text format") from None
    vector.setflags(write=False)
    return vector
