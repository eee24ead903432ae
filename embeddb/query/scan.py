"""Index scans that go on until something other than a LIMIT ends them: a radius, or the place of a page's end.

In strict order pgvector drops a row that it finds after one further away. In relaxed order it gives that row too, a
little late: whoever scans so takes some rows more than needed and sorts them. The settings go with the query's
vector, as in ``embeddb.orm.query_vector``. See https://github.com/pgvector/pgvector#iterative-index-scans.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal_column, select, true

from embeddb.orm.effort import probes
from embeddb.query.embedding import Embedding
from embeddb.spec import HNSW, IVFFlat, VectorIndex

#: Rows to see beyond what is needed before a scan ends: what a relaxed order is late by is less than a batch.
MARGIN: Final = 100
EF_SEARCH: Final = 200
#: Of work_mem, for what a scan has seen; beyond that it would end early.
SCAN_MEMORY: Final = 100


def holds_distances(index: VectorIndex | None) -> bool:
    """Whether the index orders by the distance itself, and not by one that only chooses candidates."""
    return index is not None and index.cast != "binary" and index.prefix is None


def relaxed(embedding: Embedding, vector: ColumnElement[Any]) -> ColumnElement[float]:
    """The distance to ``vector`` for an ORDER BY that an index scan in relaxed order serves."""
    scanned = select(vector).where(*_settings(embedding.settings.index)).scalar_subquery()
    return embedding.distance(scanned, exact=True)


def _settings(index: VectorIndex | None) -> Iterator[ColumnElement[bool]]:
    wanted: dict[str, str | int] = {}
    if isinstance(index, IVFFlat):
        wanted = {"ivfflat.probes": probes(index), "ivfflat.iterative_scan": "relaxed_order"}
    elif isinstance(index, HNSW):
        wanted = {
            "hnsw.ef_search": EF_SEARCH,
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": 2**31 - 1,
            "hnsw.scan_mem_multiplier": SCAN_MEMORY,
        }
    for name, value in wanted.items():
        yield func.set_config(literal_column(f"'{name}'"), literal_column(f"'{value}'"), true()).is_not(None)
