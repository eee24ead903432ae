"""``VECTOR`` and ``HALFVEC``: pgvector's types for SQLAlchemy, in binary wherever the driver can.

In a result a vector is wrapped in its send function, whose bytes every driver reads, and which never goes through
decimal digits. What a parameter becomes is the driver's matter: see ``embeddb.orm.driver``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pgvector.sqlalchemy  # noqa: F401  (see ischema_names below)
from sqlalchemy import BindParameter, ClauseElement, ColumnElement, Dialect, func
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import UserDefinedType

from embeddb.errors import EmbeddbError
from embeddb.metrics import Metric, Storage
from embeddb.orm.comparator import VectorComparator
from embeddb.orm.driver import Received, driver_of
from embeddb.vectors import Vector, as_vector, check_vector, from_text, unpack


@cache
def _unwrapped_kind(kind: Any) -> Any:
    return type(kind.__name__, (kind, DontWrapMixin), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def unwrapped(error: EmbeddbError) -> EmbeddbError:
    """The same error, marked so that SQLAlchemy does not make a StatementError of it."""
    kind: Any = type(error)
    error.__class__ = _unwrapped_kind(kind)
    return error


class VectorType(UserDefinedType[Vector]):
    """What VECTOR and HALFVEC share. Subclasses set ``cache_ok``, and may override ``dim`` and ``coerce``.

    Values go in as whatever ``as_vector`` takes and come out as read-only float32 arrays of shape (dim,).
    """

    hashable = False  # so that rows with arrays in them are told apart by identity
    comparator_factory = VectorComparator
    storage: ClassVar[Storage]

    def __init__(self, dim: int | str | None = None) -> None:
        """``dim``: dimensions of every value, or None for any. Reflection gives a string of digits."""
        # Beneath the property, because SQLAlchemy's cache key reads the instance's own dictionary.
        self.__dict__["dim"] = None if dim is None else int(dim)

    @property
    def dim(self) -> int | None:
        """Dimensions of every value, or None for any."""
        dim: int | None = self.__dict__["dim"]
        return dim

    @property
    def python_type(self) -> type[Any]:
        """numpy's array."""
        return np.ndarray

    def get_col_spec(self, **options: Any) -> str:
        """``vector(384)``, or ``vector`` for any dimensions."""
        return self.storage if self.dim is None else f"{self.storage}({self.dim})"

    def coerce(self, value: Any) -> Vector:
        """A parameter's value as the vector that is sent. Raises VectorError for what must not be stored."""
        return check_vector(value, self.dim, storage=self.storage, where=f"a value for {self.get_col_spec()}")

    def for_search(self, metric: Metric) -> VectorType:
        """The type of a parameter that is compared with such a vector."""
        kind = _SearchHalfvec if self.storage == "halfvec" else _SearchVector
        return kind(self.dim, metric.name)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether an attribute's two values are the same vector."""
        if x is y:
            return True
        if x is None or y is None or isinstance(x, ClauseElement) or isinstance(y, ClauseElement):
            return False
        return np.array_equal(x, y)

    def bind_expression(self, bindvalue: BindParameter[Vector]) -> ColumnElement[Vector]:
        """Cast a parameter to the type without its dimensions: ``coerce`` has checked them, and knows them late."""
        return Received(bindvalue, self.storage)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """The function from a value to what the driver sends."""
        driver = driver_of(dialect)
        driver.prepare(dialect)
        coerce, send = self.coerce, driver.sender(self.storage)

        def process(value: Any) -> Any:
            if value is None:
                return None
            try:
                return send(coerce(value))
            except EmbeddbError as error:
                raise unwrapped(error) from None

        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """The function from a value to an SQL literal."""
        coerce, literal = self.coerce, driver_of(dialect).literal
        return lambda value: literal(coerce(value))

    def column_expression(self, colexpr: ColumnElement[Vector]) -> ColumnElement[Vector]:
        """Ask for the binary form, as bytea."""
        send = func.halfvec_send if self.storage == "halfvec" else func.vector_send
        return send(colexpr, type_=self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Vector | None]:
        """The function from what the driver gives to an array: bytes, or text where no statement was compiled."""
        driver_of(dialect).prepare(dialect)
        storage = self.storage

        def process(value: Any) -> Vector | None:
            if isinstance(value, bytes | memoryview):
                return unpack(value, storage)
            if value is None:
                return None
            return from_text(value) if isinstance(value, str) else as_vector(value, allow_zero=True)

        return process


class VECTOR(VectorType):
    """``vector(dim)``: single precision."""

    cache_ok = True
    storage = "vector"


class HALFVEC(VectorType):
    """``halfvec(dim)``: half precision, rounded to the nearest on the way in; float32 arrays on the way out."""

    cache_ok = True
    storage = "halfvec"


class _Search(VectorType):
    """A vector to compare with. Unlike a stored one it may be zero, but for cosine, whose answer would be NaN."""

    def __init__(self, dim: int | None, metric: str) -> None:
        super().__init__(dim)
        self.metric = metric

    def coerce(self, value: Any) -> Vector:
        return as_vector(
            value,
            self.dim,
            storage=self.storage,
            what="the vector to search for",
            allow_zero=self.metric != "cosine",
        )


class _SearchVector(_Search, VECTOR):
    cache_ok = True


class _SearchHalfvec(_Search, HALFVEC):
    cache_ok = True


# What reflection makes of these names, in SQLAlchemy's table for that. pgvector.sqlalchemy writes there when it is
# imported: it is, above, so that a later import of it does not take the names over in the middle of a process.
ischema_names.update(vector=VECTOR, halfvec=HALFVEC)
