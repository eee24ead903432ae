"""The metric table: the one place that maps a metric to operators, operator classes and scores.

A *distance* is what pgvector's operator returns (smaller is nearer); a *score* is the metric's own
figure (larger is nearer). See https://github.com/pgvector/pgvector#querying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from embeddb.errors import DeclarationError

MetricName = Literal["cosine", "l2", "inner_product"]
Storage = Literal["vector", "halfvec"]

STORAGES: Final[tuple[str, ...]] = get_args(Storage)


def _per_storage(suffix: str) -> Mapping[str, str]:
    return MappingProxyType({storage: f"{storage}_{suffix}" for storage in STORAGES})


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to compare two vectors.

    ``operator``: pgvector's distance operator. ``opclass``: the operator class per storage type.
    ``comparator``: the method of a column that builds the distance. ``score``: the metric's own figure
    from a distance; it takes a number, an array or an SQL expression alike.
    """

    name: MetricName
    operator: str
    opclass: Mapping[str, str]
    comparator: str
    score: Callable[[Any], Any]


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("cosine", "<=>", _per_storage("cosine_ops"), "cosine_distance", lambda d: 1 - d),
            Metric("l2", "<->", _per_storage("l2_ops"), "l2_distance", lambda d: 1 / (1 + d)),
            # pgvector's <#> is the negative inner product, so that ascending order means nearer.
            Metric("inner_product", "<#>", _per_storage("ip_ops"), "inner_product", lambda d: -d),
        )
    }
)


def get_metric(name: str) -> Metric:
    """The metric of that name; DeclarationError lists the known ones."""
    try:
        return METRICS[name]
    except KeyError:
        known = ", ".join(repr(known) for known in METRICS)
        raise DeclarationError(f"unknown metric {name!r}: choose one of {known}") from None
