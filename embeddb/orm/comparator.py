"""Distances as methods of a vector column."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ClauseElement, ColumnElement, Float, bindparam
from sqlalchemy.types import UserDefinedType

from embeddb.metrics import METRICS, Metric


class VectorComparator(UserDefinedType.Comparator[Any]):
    """The operators of a vector column or expression.

    ``other`` is whatever ``as_vector`` takes, or an SQL expression: a column, a bind parameter, a subquery.
    """

    type: Any

    def cosine_distance(self, other: Any) -> ColumnElement[float]:
        """``<=>``: 1 minus the cosine of the angle between them; 0 to 2."""
        return self.distance(METRICS["cosine"], other)

    def l2_distance(self, other: Any) -> ColumnElement[float]:
        """``<->``: the Euclidean distance."""
        return self.distance(METRICS["l2"], other)

    def inner_product(self, other: Any) -> ColumnElement[float]:
        """``<#>``: the negative inner product, so that ascending order means nearer."""
        return self.distance(METRICS["inner_product"], other)

    def l1_distance(self, other: Any) -> ColumnElement[float]:
        """``<+>``: the sum of the differences (taxicab distance)."""
        return self.distance(METRICS["l1"], other)

    def distance(self, metric: Metric, other: Any) -> ColumnElement[float]:
        """The distance by ``metric``: where the methods above end, and what a subclass overrides."""
        return self.compare(metric, self.expr, self.operand(metric, other))

    def operand(self, metric: Metric, other: Any) -> ColumnElement[Any]:
        """The right side of a distance: ``other`` itself where it is SQL, else a parameter that holds it."""
        if hasattr(other, "__clause_element__"):
            other = other.__clause_element__()
        if isinstance(other, ClauseElement):
            return other  # type: ignore[return-value]  # any clause: Postgres will say if it is no vector
        return bindparam(None, other, type_=self.type.for_search(metric), unique=True)

    @staticmethod
    def compare(metric: Metric, left: ColumnElement[Any], right: ColumnElement[Any]) -> ColumnElement[float]:
        """``left`` and ``right`` with the metric's operator between them."""
        return left.op(metric.operator, return_type=Float())(right)
