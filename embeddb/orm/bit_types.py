"""``BIT(n)``: strings of bits, and the type of a query's. In SQL they travel as text, which every driver knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy import BindParameter, ClauseElement, ColumnElement, Dialect, Text, cast, type_coerce
from sqlalchemy.types import UserDefinedType

from embeddb.errors import EmbeddbError, QueryError
from embeddb.metrics import METRICS, Metric
from embeddb.orm.comparator import VectorComparator
from embeddb.orm.settings import Settings
from embeddb.orm.types import unwrapped
from embeddb.vectors.bits import Bits, as_bits, from_bits


class BitComparator(VectorComparator):
    """The operators of a column of bits."""

    def hamming_distance(self, other: Any) -> ColumnElement[float]:
        """``<~>``: how many bits differ."""
        return self.distance(METRICS["hamming"], other)

    def jaccard_distance(self, other: Any) -> ColumnElement[float]:
        """``<%>``: 1 minus the bits that both have, as a share of those that either has."""
        return self.distance(METRICS["jaccard"], other)


class BIT(UserDefinedType[Bits]):
    """``bit(n)``. Values go in as whatever ``as_bits`` takes and come out as read-only bool arrays of shape (n,)."""

    cache_ok = True
    hashable = False
    comparator_factory = BitComparator

    def __init__(self, length: int) -> None:
        self.length = length

    def get_col_spec(self, **options: Any) -> str:
        """``bit(64)``."""
        return f"bit({self.length})"

    @property
    def python_type(self) -> type[Any]:
        """numpy's array."""
        return np.ndarray

    def for_search(self, metric: Metric) -> BIT:
        """The type of a parameter that is compared with such bits."""
        return BIT(self.length)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether an attribute's two values are the same bits."""
        if x is None or y is None or isinstance(x, ClauseElement) or isinstance(y, ClauseElement):
            return x is y
        return as_bits(x, self.length) == as_bits(y, self.length)

    def bind_expression(self, bindvalue: BindParameter[Bits]) -> ColumnElement[Bits]:
        """Text as bits."""
        return cast(cast(bindvalue, Text()), BIT(self.length))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """The function from a value to zeros and ones."""

        def process(value: Any) -> Any:
            try:
                return None if value is None else as_bits(value, self.length, what=f"a value for bit({self.length})")
            except EmbeddbError as error:
                raise unwrapped(error) from None

        return process

    def column_expression(self, colexpr: ColumnElement[Bits]) -> ColumnElement[Bits]:
        """Ask for text."""
        return type_coerce(cast(colexpr, Text()), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Bits | None]:
        """The function from zeros and ones to an array."""
        return lambda value: None if value is None else from_bits(value)


class QueryBits(BIT):
    """A query's parameter, of a column with settings."""

    cache_ok = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.dim)
        self.settings = settings

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """As of any bits; without any, there is nothing to search for."""
        process = super().bind_processor(dialect)

        def required(value: Any) -> Any:
            if value is None:
                raise unwrapped(QueryError("a search needs bits, and this one's are None"))
            return process(value)

        return required
