"""``nearest``: the rows whose embedding is nearest to a text, a vector or another row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Select, literal_column, select
from sqlalchemy.orm import QueryableAttribute

from embeddb.errors import QueryError
from embeddb.orm.embedding_type import distance as measure
from embeddb.orm.settings import settings_of


def nearest(
    embedding: QueryableAttribute[Any] | Column[Any],
    query: Any,
    *,
    distance: bool = False,
    score: bool = False,
    exact: bool = False,
) -> Select[Any]:
    """Select the rows in the order of their distance to ``query``, by the declared metric.

    ``embedding``: ``Article.embedding``, of an ``aliased`` class too, or a Core column. ``query``: what its encoder
    takes (a text), a vector, a mapped instance (its vector), ``bindparam("q")`` for a value given later, or an SQL
    expression. ``distance``, ``score``: add a column of that name after the entity; smaller and larger means
    nearer. ``exact``: read every row that the filters leave instead of using the index.

    Rows without a vector are left out. The result is an ordinary Select of the entity: add ``where``, ``join``,
    ``limit``. With a LIMIT the index serves it, and scans on until the LIMIT is filled, filters or not.
    """
    column = embedding.__clause_element__() if isinstance(embedding, QueryableAttribute) else embedding
    settings = settings_of(getattr(column, "type", None))
    if settings is None:
        raise QueryError(
            f"nearest takes a column made by embedding_column, such as Article.embedding, not {embedding!r}"
        )
    measured = measure(column, settings, settings.metric, query, exact=exact)
    columns: list[ColumnElement[Any]] = []
    if distance:
        columns.append(measured.label("distance"))
    if score:
        columns.append(settings.metric.score(measured).label("score"))
    statement = select(_entity(embedding), *columns).where(column.is_not(None))
    return statement.order_by(_exactly(measured) if exact else measured)


def _exactly(distance: ColumnElement[float]) -> ColumnElement[float]:
    """The same order by an expression that no index has."""
    return distance + literal_column("0")


def _entity(embedding: QueryableAttribute[Any] | Column[Any]) -> Any:
    if isinstance(embedding, QueryableAttribute):
        return embedding.parent.entity
    return embedding.table
