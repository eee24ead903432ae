"""What a vector index is built on, and its operator class: one table for DDL, queries and migrations.

Postgres uses an expression index only where a query has the same expression, so both come from here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Index, Table, cast, func, literal_column
from sqlalchemy.sql.selectable import AliasedReturnsRows
from sqlalchemy.types import UserDefinedType

from embeddb.metrics import METRICS
from embeddb.naming import index_name, quoted
from embeddb.orm.settings import Settings
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.spec import VectorIndex


class _Bit(UserDefinedType[str]):
    """``bit(n)``, n being the dimensions that are indexed."""

    cache_ok = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def get_col_spec(self, **options: Any) -> str:
        return f"bit({_indexed_dim(self.settings)})"


class _Halfvec(HALFVEC):
    """``halfvec(n)``, n being the declared dimensions."""

    cache_ok = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def dim(self) -> int:
        return self.settings.dim


def indexed(vector: ColumnElement[Any], settings: Settings) -> ColumnElement[Any]:
    """The form of a vector, of a column or a query, that the declared index holds.

    The vector itself, or its first dimensions, its half-precision copy, or its binary quantisation.
    """
    index = settings.index
    if index is None:
        return vector
    if index.prefix is not None:
        # Literals, not parameters: under a generic plan $1 is no longer the 1 of the index.
        first: ColumnElement[int] = literal_column("1")
        count: ColumnElement[int] = literal_column(str(index.prefix))
        kind = HALFVEC if "halfvec" in (index.cast, settings.storage) else VECTOR
        vector = cast(func.subvector(vector, first, count), kind(index.prefix))
    elif index.cast == "halfvec":
        vector = cast(vector, _Halfvec(settings))
    if index.cast == "binary":
        return cast(func.binary_quantize(vector), _Bit(settings))
    return vector


def compared(vector: ColumnElement[Any], settings: Settings) -> ColumnElement[Any]:
    """The form of a column in a distance.

    That of a halfvec index, whose distances are good to three digits; the column itself where the index holds less,
    for then its distances only choose candidates.
    """
    return indexed(vector, settings) if settings.storage == "vector" and compares_halfvec(settings) else vector


def compares_halfvec(settings: Settings) -> bool:
    """Whether distances are between halfvecs, though the column may be a vector."""
    index = settings.index
    return settings.storage == "halfvec" or (index is not None and index.cast == "halfvec" and index.prefix is None)


def opclass(settings: Settings, index: VectorIndex) -> str:
    """The operator class of an index: of the metric, and of what is really indexed."""
    if index.cast == "binary":
        return "bit_hamming_ops"
    return METRICS[settings.metric_name].opclass[index.cast or settings.storage]


def declared_index(name: str, column: Column[Any], settings: Settings, **arguments: Any) -> Index:
    """The declared index of a table's column, under that name; ``arguments``: more of them for ``Index``."""
    index = settings.index
    assert index is not None
    return Index(
        name,
        indexed(column, settings).label(column.key),
        postgresql_using=index.method,
        postgresql_with=index.options,
        postgresql_ops={column.key: opclass(settings, index)},
        **arguments,
    )


def index_of(column: ColumnElement[Any] | None, settings: Settings) -> str | None:
    """The name of the declared index of a table's column, as ``to_regclass`` reads it; None where none is known."""
    table: Any = getattr(column, "table", None)
    while isinstance(table, AliasedReturnsRows):
        table = table.element
    if settings.index is None or not isinstance(table, Table):
        return None
    return quoted(index_name(table.name, column.name, settings.index.method), table.schema)  # type: ignore[union-attr]


def _indexed_dim(settings: Settings) -> int:
    prefix = settings.index and settings.index.prefix
    return prefix or settings.dim
