"""``bit_column``: a column of bits with its metric and its index, searched like an embedding.

Perceptual hashes of images and sounds, iris codes, fingerprints of molecules: the bits are made elsewhere, so there
is no encoder, and nothing is embedded on insert. Everything that searches by a declared metric works on them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Index
from sqlalchemy.orm import MappedColumn

from embeddb.errors import DeclarationError, MetricMismatch
from embeddb.metrics import BitMetricName, Metric, check_metric
from embeddb.naming import index_name
from embeddb.orm.bit_types import BIT, BitComparator
from embeddb.orm.elsewhere import NoEncoder, searched_column
from embeddb.orm.embedding_type import distance
from embeddb.orm.settings import Settings
from embeddb.spec import HNSW, MAX_INDEXED, VectorIndex


class _SearchedComparator(BitComparator):
    """Distances in the form that the declared index serves."""

    type: SearchedBits

    def distance(self, metric: Metric, other: Any) -> ColumnElement[float]:
        settings = self.type.settings
        if settings.index is not None and metric is not settings.metric:
            raise MetricMismatch(
                f"{self.expr}: its index serves {settings.metric_name}, so {metric.comparator} would read the whole "
                f"table; use {settings.metric.comparator}, declare metric={metric.name!r}, or declare index=None"
            )
        return distance(self.expr, settings, metric, other)


class SearchedBits(BIT):
    """``bit(n)`` of a declared column."""

    cache_ok = True
    comparator_factory = _SearchedComparator

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.dim)
        self.settings = settings

    def __repr__(self) -> str:
        """As a migration writes it: the settings are the application's."""
        return f"BIT({self.length})"


class _NoEncoder(NoEncoder):
    """Bits are bits: columns of as many can be compared."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, "give the bits")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NoEncoder) and other.dim == self.dim

    def __hash__(self) -> int:
        return hash(self.dim)


def bit_column(
    length: int,
    *,
    metric: BitMetricName = "hamming",
    index: VectorIndex | None = HNSW(),  # noqa: B008 - frozen, so that one default serves all
    **column: Any,
) -> MappedColumn[Any]:
    """A mapped column of ``length`` bits, with an index, for ``nearest``, ``within``, ``page`` and the distances.

    ``metric``: hamming (how many bits differ) or jaccard (1 minus the share of bits in common). ``index``: HNSW(),
    IVFFlat() for hamming only, or None. Values: zeros and ones as a string, bools or packed bytes; see ``as_bits``.
    Other arguments go to ``mapped_column``. The column is nullable unless it says otherwise.

    Raises DeclarationError for what pgvector cannot index: more than 64,000 bits, jaccard by ivfflat, a cast.
    """
    if not isinstance(length, int) or not 1 <= length <= MAX_INDEXED["bit"]:
        raise DeclarationError(f"bit_column: a column has 1 to {MAX_INDEXED['bit']} bits, not {length!r}")
    if index is not None and not isinstance(index, VectorIndex):
        raise DeclarationError(f"bit_column: index is HNSW(), IVFFlat() or None, not {index!r}")
    if index is not None and (index.cast is not None or index.prefix is not None):
        raise DeclarationError("bit_column: bits are indexed as they are: remove the index's cast and prefix")
    check_metric(metric, "bit", None if index is None else index.method)
    settings = Settings(
        sources=(),
        encoder=_NoEncoder(length),
        metric_name=metric,  # type: ignore[arg-type]  # that of a vector, elsewhere
        storage="bit",  # type: ignore[arg-type]
        index=index,
        mode="queued",
        template=None,
        on_error="raise",
        on_update="keep",
        given_dim=length,
        deferred=False,
    )
    return searched_column(SearchedBits(settings), settings, _add_index, column)


def _add_index(column: Column[Any], settings: Settings) -> None:
    assert settings.index is not None
    Index(
        index_name(column.table.name, column.name, settings.index.method),
        column,
        postgresql_using=settings.index.method,
        postgresql_with=settings.index.options,
        postgresql_ops={column.key: settings.metric.opclass["bit"]},
        _column_flag=True,
    )
