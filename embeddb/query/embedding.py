"""What a search is pointed at: an embedding's column, and the rows that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, inspect, literal_column
from sqlalchemy.orm import QueryableAttribute

from embeddb.errors import QueryError
from embeddb.metrics import Metric
from embeddb.orm.embedding_type import distance
from embeddb.orm.settings import Settings, settings_of


@dataclass(frozen=True, slots=True)
class Embedding:
    """One embedding as a statement refers to it.

    ``entity``: what to select, a mapped class, an alias of one, or a table. ``column``: the vector's column of that
    entity. ``settings``: what was declared. ``key``: the entity's primary key, in the order of its columns.
    """

    entity: Any
    column: ColumnElement[Any]
    settings: Settings
    key: tuple[ColumnElement[Any], ...]

    @property
    def metric(self) -> Metric:
        """The declared metric."""
        return self.settings.metric

    def distance(self, query: Any, *, exact: bool = False) -> ColumnElement[float]:
        """The distance to ``query`` by the declared metric; see ``nearest`` for what that may be."""
        return distance(self.column, self.settings, self.metric, query, exact=exact)


def resolve(embedding: QueryableAttribute[Any] | Column[Any] | ColumnElement[Any], what: str = "this") -> Embedding:
    """The embedding meant by ``Article.embedding``, of an ``aliased`` class too, or by a Core column.

    ``what``: the caller's name for a QueryError, which says what else was given.
    """
    column = embedding.__clause_element__() if isinstance(embedding, QueryableAttribute) else embedding
    settings = settings_of(getattr(column, "type", None))
    if settings is None or getattr(column, "table", None) is None:
        raise QueryError(
            f"{what} takes a column made by embedding_column, such as Article.embedding, not {embedding!r}"
        )
    if isinstance(embedding, QueryableAttribute):
        entity = embedding.parent.entity
        return Embedding(entity, column, settings, primary_key(entity))
    return Embedding(column.table, column, settings, tuple(column.table.primary_key))


def primary_key(entity: Any) -> tuple[ColumnElement[Any], ...]:
    """The primary key's columns of a mapped class, as ``entity`` (the class, or an alias of it) has them."""
    mapper = inspect(entity).mapper
    attributes = (mapper.get_property_by_column(column).key for column in mapper.primary_key)
    return tuple(getattr(entity, key).__clause_element__() for key in attributes)


def in_full(measured: ColumnElement[float]) -> ColumnElement[float]:
    """The same order by an expression that no index has: ``distance + 0``, so that all rows are read."""
    return measured + literal_column("0")
