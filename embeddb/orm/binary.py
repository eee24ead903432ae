"""Vectors in binary with psycopg, both ways.

psycopg adapts what its cursor knows how to adapt, and a cursor learns from its connection, which learnt when it was
made. Engines and connections are older than the first vector that they see, and nothing global is to be patched.
So a listener on the dialect of one engine teaches each connection at its first statement.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import AsyncClientCursor, ClientCursor, ProgrammingError
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format
from sqlalchemy import Boolean, CompoundSelect, Date, DateTime, Dialect, Integer, LargeBinary, Select, Uuid, event
from sqlalchemy.engine import ExecutionContext

from embeddb.metrics import Storage
from embeddb.orm.types import VectorType
from embeddb.vectors import Vector, pack, to_text


class VectorParameter:
    """A vector as a parameter of psycopg. A class of our own, so that nobody's arrays change their meaning."""

    __slots__ = ("storage", "vector")

    def __init__(self, vector: Vector, storage: Storage) -> None:
        self.vector = vector
        self.storage = storage

    def __repr__(self) -> str:
        shown = ", ".join(f"{element:.4g}" for element in self.vector[:3].tolist())
        return f"<{self.storage}({len(self.vector)}) [{shown}, ...]>"


class _TextDumper(Dumper):
    """For cursors that bind on the client's side."""

    def dump(self, obj: VectorParameter) -> bytes:
        return to_text(obj.vector).encode()


class _BinaryDumper(Dumper):
    """The oid stays unknown, since it differs between databases: the statement's cast says what the bytes are."""

    format = Format.BINARY

    def dump(self, obj: VectorParameter) -> bytes:
        return pack(obj.vector, obj.storage)


def prepare(dialect: Dialect) -> None:
    """Let the engine of this dialect send vectors in binary, and read them so where it can. Does it once."""
    for name in ("do_execute", "do_executemany"):
        if not event.contains(dialect, name, _before_execute):
            event.listen(dialect, name, _before_execute)


def _before_execute(cursor: Any, statement: str, parameters: Any, context: ExecutionContext | None) -> None:
    cursor = getattr(cursor, "_cursor", cursor)  # an asyncio dialect wraps the driver's
    try:
        cursor.adapters.get_dumper(VectorParameter, PyFormat.BINARY)
    except ProgrammingError:
        for adapters in (cursor.connection.adapters, cursor.adapters):
            adapters.register_dumper(VectorParameter, _TextDumper)
            adapters.register_dumper(VectorParameter, _BinaryDumper)  # the last one is preferred
    # Cursors that bind on the client's side speak the simple protocol, which knows text alone.
    if not isinstance(cursor, ClientCursor | AsyncClientCursor) and context and _is_binary(context.compiled):
        cursor.format = Format.BINARY


#: Types whose values are the same from a binary result. In binary, psycopg leaves what it does not know, such as an
#: enum that was declared as a String, as bytes; and a float4 shows more digits.
_SAME_IN_BINARY: Final = (VectorType, Integer, Boolean, Uuid, LargeBinary, Date, DateTime)


def _is_binary(compiled: Any) -> bool:
    """Whether a result holds vectors, and nothing that would suffer from being sent in binary.

    A result is wholly in binary or wholly in text; in text, the bytes of a vector are sent as hexadecimal digits.
    """
    if compiled is None or not isinstance(compiled.statement, Select | CompoundSelect):
        return False  # textual statements may have more columns than are declared
    types = [entry[3] for entry in compiled._result_columns]
    return any(isinstance(t, VectorType) for t in types) and all(isinstance(t, _SAME_IN_BINARY) for t in types)
