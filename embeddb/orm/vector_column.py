"""``vector_column``: a column of vectors that are made elsewhere, with metric and index, searched like an embedding.

Vectors of items that a recommender was trained for, users' vectors that triggers keep up: there is no encoder, and
nothing is embedded on insert. Everything that searches by a declared metric works on them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column
from sqlalchemy.orm import MappedColumn

from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName, Storage
from embeddb.naming import index_name
from embeddb.orm.elsewhere import searched_column, settings_elsewhere
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.index_expression import declared_index
from embeddb.orm.settings import Settings
from embeddb.spec import HNSW, VectorIndex, check_choices, check_indexable


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
    column.setdefault("deferred", True)
    settings = settings_elsewhere(dim, metric, storage, index, deferred=column["deferred"])
    return searched_column(embedding_type(settings), settings, _add_index, column)


def _add_index(column: Column[Any], settings: Settings) -> None:
    assert settings.index is not None
    name = index_name(column.table.name, column.name, settings.index.method)
    declared_index(name, column, settings, _column_flag=True)
