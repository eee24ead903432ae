"""What a search is pointed at: an embedding's column, and the rows that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, FromClause, Select, and_, inspect, literal_column, select, type_coerce
from sqlalchemy.orm import Mapper, QueryableAttribute, aliased
from sqlalchemy.sql.elements import KeyedColumnElement

from embeddb.errors import QueryError
from embeddb.metrics import Metric
from embeddb.orm.embedding_type import distance
from embeddb.orm.query_vector import parameter_type, query_expression
from embeddb.orm.settings import Settings, settings_of

AnyEmbedding = QueryableAttribute[Any] | Column[Any] | ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Embedding:
    """One embedding as a statement refers to it.

    ``attribute``: what was given. ``entity``: what to select, a mapped class, an alias of one, or a table.
    ``column``: the vector's column of that entity. ``settings``: what was declared. ``key``: the entity's primary
    key, in the order of its columns.
    """

    attribute: AnyEmbedding
    entity: Any
    column: KeyedColumnElement[Any]
    settings: Settings
    key: tuple[ColumnElement[Any], ...]

    @property
    def metric(self) -> Metric:
        """The declared metric."""
        return self.settings.metric

    @property
    def table(self) -> FromClause:
        """The table behind the entity, whatever it is called in the statement."""
        (column,) = self.column.base_columns
        assert isinstance(column, Column)
        table: FromClause = column.table
        return table

    def distance(self, query: Any, *, exact: bool = False) -> ColumnElement[float]:
        """The distance to ``query`` by the declared metric; see ``nearest`` for what that may be."""
        return distance(self.column, self.settings, self.metric, query, exact=exact)

    def parameter(self, query: Any) -> ColumnElement[Any]:
        """The query's vector alone, for whoever brings the settings of the scan himself."""
        return query_expression(query, self.settings, exact=True)

    def as_query(self, vector: ColumnElement[Any]) -> ColumnElement[Any]:
        """An SQL expression as the query's vector, of a type that tells its settings."""
        return type_coerce(vector, parameter_type(self.settings))

    def is_row(self, row: Iterable[ColumnElement[Any]]) -> ColumnElement[bool]:
        """Whether a row is the one whose key stands in the first columns of ``row``."""
        return and_(*(mine == other for mine, other in zip(self.key, row, strict=False)))

    def another(self) -> Embedding:
        """The same embedding of an alias of its own, to be read beside this one in one statement."""
        if not isinstance(self.attribute, QueryableAttribute):
            return resolve(self.table.alias().c[str(self.column.key)])
        return resolve(getattr(aliased(inspect(self.entity).mapper), self.attribute.key))

    def rows(self, among: Select[Any] | None, what: str) -> Select[Any]:
        """The rows to search: those of ``among``, a select of the entity with filters and joins, or all of them.

        Selects the key's columns. Rows without a vector are left out.
        """
        if among is None:
            among = select(self.entity)
        elif not isinstance(among, Select) or not any(
            source.is_derived_from(self.column.table) for source in among.columns_clause_froms
        ):
            raise QueryError(f"{what}: among is a select of {self.entity}, with filters and joins, not {among!r}")
        elif among._limit_clause is not None or among._fetch_clause is not None or among._offset_clause is not None:
            raise QueryError(f"{what}: among is a select of the rows to search, with filters and joins and no limit")
        rows = among.order_by(None).with_only_columns(*self.key, maintain_column_froms=True)
        return rows.where(self.column.is_not(None))


def resolve(embedding: AnyEmbedding, what: str = "this") -> Embedding:
    """The embedding meant by ``Article.embedding``, of an ``aliased`` class too, or by a Core column.

    ``what``: the caller's name for a QueryError, which says what else was given.
    """
    column: Any = embedding.__clause_element__() if isinstance(embedding, QueryableAttribute) else embedding
    settings = settings_of(getattr(column, "type", None))
    table = getattr(column, "table", None)
    if settings is None or table is None:
        raise QueryError(
            f"{what} takes a column made by embedding_column or bit_column, like Article.embedding, "
            f"not {_named(embedding)}"
        )
    if isinstance(embedding, QueryableAttribute):
        entity = embedding.parent.entity
        return Embedding(embedding, entity, column, settings, primary_key(entity))
    return Embedding(embedding, table, column, settings, tuple(table.primary_key))


def _named(given: Any) -> str:
    """What was taken for an embedding, as its author knows it; of a class what was meant, perhaps."""
    mapper = inspect(given, raiseerr=False)
    if not isinstance(mapper, Mapper):
        return str(given) if isinstance(given, QueryableAttribute) else repr(given)
    name = mapper.class_.__name__
    found = [f"{name}.{prop.key}" for prop in mapper.column_attrs if settings_of(prop.columns[0].type) is not None]
    return f"the class {name}, which has {', '.join(found) or 'no embedding'}"


def primary_key(entity: Any) -> tuple[ColumnElement[Any], ...]:
    """The primary key's columns of a mapped class, as ``entity`` (the class, or an alias of it) has them."""
    mapper = inspect(entity).mapper
    attributes = (mapper.get_property_by_column(column).key for column in mapper.primary_key)
    return tuple(getattr(entity, key).__clause_element__() for key in attributes)


def in_full(measured: ColumnElement[float]) -> ColumnElement[float]:
    """The same order by an expression that no index has: ``distance + 0``, so that all rows are read."""
    return measured + literal_column("0")
