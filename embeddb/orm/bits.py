"""``bit_column``: a column of bits with its metric and its index, searched like an embedding.

Perceptual hashes of images and sounds, iris codes, fingerprints of molecules: the bits are made elsewhere, so there
is no encoder, and nothing is embedded on insert. Everything that searches by a declared metric works on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy import Column, ColumnElement, Index, Table, event
from sqlalchemy.orm import MappedColumn, mapped_column

from embeddb.errors import DeclarationError, EncoderError, MetricMismatch
from embeddb.metrics import BitMetricName, Metric, check_metric
from embeddb.naming import index_name
from embeddb.orm.bit_types import BIT, BitComparator
from embeddb.orm.embedding_type import distance
from embeddb.orm.extension import check_extension
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


@dataclass(frozen=True)
class NoEncoder:
    """In an encoder's place: bits come from elsewhere."""

    dim: int
    modality: Any = None
    fingerprint: str = "bits"

    @property
    def config(self) -> Mapping[str, Any]:
        """Nothing to make it from."""
        return {}

    def encode_documents(self, inputs: Sequence[Any]) -> NoReturn:
        """Raises EncoderError."""
        raise EncoderError("a column of bits has no encoder: give the bits")

    encode_queries = encode_documents


_KEY: Final = "embeddb_bits"


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
        encoder=NoEncoder(length),
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
    column.setdefault("nullable", True)
    mapped = mapped_column(SearchedBits(settings), **column)
    mapped.column.info[_KEY] = settings
    # Copies of the column (mixins, to_metadata) must join their tables in the same way: propagate.
    event.listen(mapped.column, "after_parent_attach", _join_table, propagate=True)
    return mapped


def _join_table(column: Column[Any], table: Table) -> None:
    settings: Settings = column.info[_KEY]
    if not event.contains(table, "before_create", check_extension):
        event.listen(table, "before_create", check_extension)
    if settings.index is not None:
        Index(
            index_name(table.name, column.name, settings.index.method),
            column,
            postgresql_using=settings.index.method,
            postgresql_with=settings.index.options,
            postgresql_ops={column.key: settings.metric.opclass["bit"]},
            _column_flag=True,
        )
