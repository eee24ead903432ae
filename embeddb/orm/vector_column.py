"""``vector_column``: a column of vectors that are made elsewhere, with metric and index, searched like an embedding.

Vectors of items that a recommender was trained for, users' vectors that triggers keep up: there is no encoder, and
nothing is embedded on insert. Everything that searches by a declared metric works on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import MappedColumn, mapped_column

from embeddb.encoders import Encoder
from embeddb.errors import DeclarationError, EncoderError
from embeddb.metrics import MetricName, Storage
from embeddb.naming import index_name
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.extension import check_extension
from embeddb.orm.index_expression import declared_index
from embeddb.orm.settings import Settings
from embeddb.spec import HNSW, VectorIndex, check_choices, check_indexable


# Compared by identity: two columns of as many dimensions are not one space.
class Elsewhere:
    """In an encoder's place: the vectors come from elsewhere, so texts cannot be searched for."""

    modality: Any = None
    fingerprint: str = "elsewhere"
    config: Mapping[str, Any] = {}

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_documents(self, inputs: Sequence[Any]) -> NoReturn:
        """Raises EncoderError."""
        raise EncoderError("a column of vectors made elsewhere has no encoder: search by a vector or by a row")

    encode_queries = encode_documents


_KEY: Final = "embeddb_vectors"


def vector_column(
    dim: int,
    *,
    metric: MetricName = "cosine",
    storage: Storage = "vector",
    index: VectorIndex | None = HNSW(),  # noqa: B008 - frozen, so that one default serves all
    **column: Any,
) -> MappedColumn[Any]:
    """A mapped column of vectors of ``dim`` dimensions, with an index, for ``nearest`` and everything beside it.

    ``metric``, ``storage``, ``index``: as for ``embedding_column``. Other arguments go to ``mapped_column``. The
    column is nullable and deferred unless it says otherwise. Raises DeclarationError for what pgvector cannot index.
    """
    if not isinstance(dim, int) or dim < 1:
        raise DeclarationError(f"vector_column: dim is a positive number of dimensions, not {dim!r}")
    check_choices(metric, storage, index, "queued", "raise", "keep")
    if index is not None:
        check_indexable(index, storage, dim, "vector_column")
    encoder: Encoder = Elsewhere(dim)
    column.setdefault("nullable", True)
    column.setdefault("deferred", True)
    settings = Settings(
        sources=(),
        encoder=encoder,
        metric_name=metric,
        storage=storage,
        index=index,
        mode="queued",
        template=None,
        on_error="raise",
        on_update="keep",
        given_dim=dim,
        deferred=column["deferred"],
    )
    mapped = mapped_column(embedding_type(settings), **column)
    mapped.column.info[_KEY] = settings
    # Copies of the column (mixins, to_metadata) must join their tables in the same way: propagate.
    event.listen(mapped.column, "after_parent_attach", _join_table, propagate=True)
    return mapped


def _join_table(column: Column[Any], table: Table) -> None:
    settings: Settings = column.info[_KEY]
    if not event.contains(table, "before_create", check_extension):
        event.listen(table, "before_create", check_extension)
    if settings.index is not None:
        declared_index(index_name(table.name, column.name, settings.index.method), column, settings, _column_flag=True)
