"""What a caller gave: numbers, keys and lists, refused in words where they are none, before Postgres sees them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Integer

from embeddb.errors import QueryError


def whole(value: Any, what: str) -> int:
    """A count: an int of at least 1. ``what``: the words for it, as in ``for_each: k is the number of rows``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise QueryError(f"{what}, a whole number of at least 1, not {value!r}")
    return int(value)


def number(value: Any, what: str) -> float:
    """A float that is not NaN, of a float, an int, a Decimal or one of numpy's."""
    try:
        found = float(value) if isinstance(value, Real) or hasattr(value, "as_tuple") else math.nan
    except OverflowError:
        found = math.nan
    if math.isnan(found):
        raise QueryError(f"{what} is a number, not {value!r}")
    return found


def key_of(value: Any, columns: Sequence[ColumnElement[Any]], table: Any, what: str) -> tuple[Any, ...]:
    """A primary key's values: of a tuple, or of a value where it has one column."""
    key = value if isinstance(value, tuple) else (value,)
    if len(key) == len(columns) and all(_fits(part, column) for part, column in zip(key, columns, strict=True)):
        return tuple(part.item() if isinstance(part, np.generic) else part for part in key)
    names = ", ".join(f"{column.key} {column.type!r}" for column in columns)
    raise QueryError(f"{what}: {value!r} is no key of {table}, which is ({names})")


def _fits(value: Any, column: ColumnElement[Any]) -> bool:
    """Whether a value may be one of the column's. Of types other than integers that is for the driver to say."""
    if value is None or isinstance(value, ColumnElement):
        return False
    return isinstance(value, Integral) or not isinstance(column.type, Integer)


def listed(values: Any, what: str) -> list[Any]:
    """Several values, as a list: of a list, a generator, or the rows of an array."""
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | dict):
        raise QueryError(f"{what}, not {values!r}")
    return list(values)
