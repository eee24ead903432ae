"""The types of an embedding's column, and of the query vectors that are compared with it.

They are VECTOR and HALFVEC with the declaration's settings: the dimensions are asked of the encoder only when they
are needed, distances take text, and a distance that the declared index cannot serve is an error.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Float
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import TypeEngine

from embeddb.errors import MetricMismatch
from embeddb.metrics import METRICS, Metric
from embeddb.orm.comparator import VectorComparator
from embeddb.orm.index_expression import compared
from embeddb.orm.query_vector import query_expression
from embeddb.orm.settings import Settings
from embeddb.orm.types import HALFVEC, VECTOR


class EmbeddingComparator(VectorComparator):
    """Distances from an embedding to a text, a vector, a row or an expression."""

    type: EmbeddingVector | EmbeddingHalfvec

    def distance(self, metric: Metric, other: Any) -> ColumnElement[float]:
        """The distance by ``metric``, in the form that the declared index serves."""
        settings = self.type.settings
        if settings.index is not None and metric.name != settings.metric_name:
            raise MetricMismatch(
                f"{self.expr}: its index serves {settings.metric_name}, so {metric.comparator} would read the whole "
                f"table; use {settings.metric.comparator}, declare metric={metric.name!r}, or declare index=None"
            )
        return distance(self.expr, settings, metric, other)

    def similarity(self, other: Any) -> ColumnElement[float]:
        """The declared metric's score, larger for nearer: cosine similarity, inner product, or 1 / (1 + L2)."""
        settings = self.type.settings
        score: ColumnElement[float] = settings.metric.score(distance(self.expr, settings, settings.metric, other))
        return score


class _Operator(custom_op[Any]):
    """One of those below, told apart by identity: SQLAlchemy compares an operator with many in each expression."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


_DISTANCE: Final = Float()
_OPERATORS: Final = {metric.operator: _Operator(metric.operator) for metric in METRICS.values()}


def distance(
    embedding: ColumnElement[Any],
    settings: Settings,
    metric: Metric,
    other: Any,
    *,
    exact: bool = False,
    recall: float | None = None,
) -> ColumnElement[float]:
    """The distance from an embedding's column to ``other``: see ``query_expression`` for what that may be.

    What ``embedding.op(metric.operator)(other)`` makes, in a third of the time: every search comes through here.
    """
    left = compared(embedding, settings)
    right = query_expression(other, settings, exact=exact, column=embedding, recall=recall)
    return BinaryExpression(left, right, _OPERATORS[metric.operator], type_=_DISTANCE)


class _Declared:
    """What the types below add: the settings, and dimensions that are asked for late."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def dim(self) -> int:
        return self.settings.dim


class EmbeddingVector(_Declared, VECTOR):
    """``vector(n)`` of a declared embedding."""

    cache_ok = True
    comparator_factory = EmbeddingComparator


class EmbeddingHalfvec(_Declared, HALFVEC):
    """``halfvec(n)`` of a declared embedding."""

    cache_ok = True
    comparator_factory = EmbeddingComparator


def embedding_type(settings: Settings) -> TypeEngine[Any]:
    """The type of the column that ``settings`` declare."""
    return EmbeddingHalfvec(settings) if settings.storage == "halfvec" else EmbeddingVector(settings)
