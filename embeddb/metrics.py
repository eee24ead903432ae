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

MetricName = Literal["cosine", "l2", "inner_product", "l1"]
BitMetricName = Literal["hamming", "jaccard"]
Storage = Literal["vector", "halfvec"]

STORAGES: Final[tuple[str, ...]] = get_args(Storage)


def _per_storage(suffix: str) -> Mapping[str, str]:
    return MappingProxyType({storage: f"{storage}_{suffix}" for storage in STORAGES})


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to compare two vectors, or two strings of bits.

    ``operator``: pgvector's distance operator. ``opclass``: the operator class per storage type, for HNSW, and for
    IVFFlat where ``ivfflat``. ``comparator``: the method of a column that builds the distance. ``score``: the
    metric's own figure from a distance; it takes a number, an array or an SQL expression alike.
    """

    name: MetricName | BitMetricName
    operator: str
    opclass: Mapping[str, str]
    comparator: str
    score: Callable[[Any], Any]
    ivfflat: bool = True


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("cosine", "<=>", _per_storage("cosine_ops"), "cosine_distance", lambda d: 1 - d),
            Metric("l2", "<->", _per_storage("l2_ops"), "l2_distance", lambda d: 1 / (1 + d)),
            # pgvector's <#> is the negative inner product, so that ascending order means nearer.
            Metric("inner_product", "<#>", _per_storage("ip_ops"), "inner_product", lambda d: -d),
            Metric("l1", "<+>", _per_storage("l1_ops"), "l1_distance", lambda d: 1 / (1 + d), ivfflat=False),
            # Of bits: how many differ; and 1 minus the ones that both have, of those that either has.
            Metric("hamming", "<~>", {"bit": "bit_hamming_ops"}, "hamming_distance", lambda d: 1 / (1 + d)),
            Metric("jaccard", "<%>", {"bit": "bit_jaccard_ops"}, "jaccard_distance", lambda d: 1 - d, ivfflat=False),
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


def check_metric(metric: str, storage: str, method: str | None = None, cast: str | None = None) -> None:
    """Refuse a metric that pgvector does not have for that storage, or for an index of that method.

    ``method``: hnsw, ivfflat or None for no index. ``cast``: what is indexed, if not the storage itself.
    """
    found = get_metric(metric)
    if storage not in found.opclass:
        others = ", ".join(repr(name) for name, other in METRICS.items() if storage in other.opclass)
        remedy = " (bits have a column of their own, bit_column)" if "bit" in found.opclass else ""
        raise DeclarationError(f"metric {metric!r} does not compare {storage}s{remedy}: choose one of {others}")
    if method == "ivfflat" and cast != "binary" and not found.ivfflat:
        raise DeclarationError(f"ivfflat has no operator class for {metric}: use index=HNSW(), or another metric")
