"""Index scans that go on until something other than a LIMIT ends them: a radius, or the place of a page's end.

In strict order pgvector drops a row that it finds after one further away. In relaxed order it gives that row too, a
little late: whoever scans so takes some rows more than needed and sorts them. The settings go with the query's
vector, as in ``embeddb.orm.query_vector``. See https://github.com/pgvector/pgvector#iterative-index-scans.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    Subquery,
    cast,
    literal_column,
    null,
    select,
)

from embeddb.orm.effort import effort, reranks
from embeddb.orm.query_vector import scan_settings
from embeddb.orm.settings import Settings
from embeddb.query.embedding import Embedding

#: Rows to see beyond what is needed before a scan ends: what a relaxed order is late by is less than a batch.
MARGIN: Final = 100


def holds_distances(settings: Settings) -> bool:
    """Whether there is an index that orders by the distance itself, not by one that only chooses candidates."""
    return settings.index is not None and not reranks(settings)


def relaxed(
    embedding: Embedding, vector: ColumnElement[Any], wanted: ColumnElement[int] | None = None
) -> ColumnElement[float]:
    """The distance to ``vector`` for an ORDER BY that an index scan in relaxed order serves.

    ``wanted``: how many rows are, by default a batch of ``MARGIN``.
    """
    rows = literal_column(str(MARGIN), Integer) if wanted is None else wanted
    asked = effort(embedding.settings, None, None, rows)
    conditions = scan_settings(embedding.settings, asked, order="relaxed_order")
    return embedding.distance(select(vector).where(*conditions).scalar_subquery(), exact=True)


def few(rows: Select[Any] | CompoundSelect[Any], *outside: FromClause) -> Subquery:
    """``rows``, as a subquery of which the planner expects a hundredth.

    It cannot know that a scan ends at a radius, and would read whole tables for what it expects. Of a LIMIT that it
    does not know it expects a tenth; NULL is no limit. ``outside``: what the rows correlate with.
    """
    unlimited = select(cast(null(), BigInteger)).scalar_subquery()
    inner = rows.limit(unlimited).subquery()
    return select(inner).correlate(*outside).limit(unlimited).subquery()
