"""The right side of a distance: a query vector that brings its scan's settings along.

pgvector's scans are set by session variables, and their right values follow from LIMIT and from the recall that is
asked for. They are set inside the statement itself, which costs no round trip, by a scalar subquery that yields the
vector::

    ORDER BY embedding <=> (SELECT $1::vector WHERE set_config('hnsw.ef_search', …, true) IS NOT NULL AND …) LIMIT $2

An index scan evaluates the subquery before it begins to search. The settings hold to the end of the transaction,
which is why every statement sets its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Select,
    String,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ColumnProperty, InstanceState
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, Label
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import ColumnOperators
from sqlalchemy.sql.selectable import ScalarSelect
from sqlalchemy.sql.visitors import InternalTraversal, iterate
from sqlalchemy.types import TypeEngine

from embeddb.encoders import Encoder, embed_query
from embeddb.encoders.pictures import is_picture
from embeddb.errors import EncoderError, NoEmbedding, QueryError, TransientEncoderError, VectorError
from embeddb.orm.bit_types import QueryBits
from embeddb.orm.effort import MAX_EF_SEARCH, effort, probes, reranks
from embeddb.orm.index_expression import compared, compares_halfvec, index_of
from embeddb.orm.offload import offload
from embeddb.orm.serving import serves_other, serving_encoder
from embeddb.orm.settings import Settings, settings_of
from embeddb.orm.types import HALFVEC, VECTOR, unwrapped
from embeddb.spec import HNSW, IVFFlat
from embeddb.vectors import Vector, as_vector, from_text
from embeddb.waveform import Waveform


def query_expression(
    value: Any,
    settings: Settings,
    *,
    exact: bool = False,
    column: ColumnElement[Any] | None = None,
    recall: float | None = None,
) -> ColumnElement[Any]:
    """What a distance compares with: of a text, a vector, a mapped instance, a bindparam or an SQL expression.

    Text is encoded when the statement executes, so that one compiled statement serves every text. ``exact``: no
    index is meant to serve it, so it brings no settings for one. ``column``: the embedding's, by whose index it is
    to be found. ``recall``: a level of ``embeddb.orm.effort``.
    """
    type_ = parameter_type(settings)
    if isinstance(value, ColumnOperators):  # an attribute of a class, too, or what a lambda statement binds
        value = coercions.expect(roles.ExpressionElementRole, value)
    if isinstance(value, BindParameter):
        vector: ColumnElement[Any] = type_coerce(value, type_)
    elif isinstance(value, ScalarSelect | FunctionElement):
        vector = type_coerce(value, type_)
    elif isinstance(value, ColumnElement):
        if isinstance(value.type, String):
            raise QueryError(f"{value} is text in the database, which only embeddb.embed(…) encodes: give a vector")
        return value
    elif isinstance(state := sa_inspect(value, raiseerr=False), InstanceState):
        vector = _of_instance(state, settings, type_)
    else:
        vector = BindParameter("query", value, type_=type_, unique=True)
    if exact or settings.index is None:
        return vector
    return SearchVector(vector, index_of(column, settings), recall)


def _of_instance(state: InstanceState[Any], settings: Settings, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """The vector of a mapped instance: the one it holds, or else the one in its row."""
    name = state.mapper.class_.__name__
    props = [prop for prop in state.mapper.column_attrs if settings_of(prop.columns[0].type) is not None]
    same = [prop for prop in props if settings_of(prop.columns[0].type) is settings]
    alike = same or [prop for prop in props if _encoder_of(prop) == settings.encoder]
    if len(alike) != 1:
        raise QueryError(f"{name} has {len(alike) or 'no'} embeddings by {settings.encoder!r}: give the vector itself")
    (prop,) = alike
    held = state.dict.get(prop.key)
    if held is not None:
        return bindparam("query", held, type_=type_, unique=True)
    if state.identity is None:
        raise QueryError(f"this {name} is new and has no {prop.key} yet: flush it first, or search with its text")
    keys = zip(state.mapper.primary_key, state.identity, strict=True)
    stored = select(prop.columns[0]).select_from(state.mapper.persist_selectable)
    return compared(stored.where(*(column == value for column, value in keys)).scalar_subquery(), settings)


def _encoder_of(prop: ColumnProperty[Any]) -> Encoder | None:
    settings = settings_of(prop.columns[0].type)
    return settings.encoder if settings else None


class _Query:
    """Of a query's parameter: takes whatever the encoder takes, and encodes it in the bind step."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def dim(self) -> int:
        return self.settings.dim

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        process = super().bind_processor(dialect)  # type: ignore[misc]  # of VECTOR or HALFVEC

        def required(value: Any) -> Any:
            if value is None:  # as NULL it would give rows in no order
                raise unwrapped(QueryError("a search needs a text or a vector, and this one's is None"))
            return process(value)

        return required

    def coerce(self, value: Any) -> Vector:
        try:
            return self._vector(value)
        except EncoderError as error:
            if not serves_other(self.settings) or isinstance(error, NoEmbedding | TransientEncoderError):
                raise
            raise type(error)(
                f"{error}. The database has this encoder registered, and the model declares "
                f"{self.settings.encoder!r}: if the two are one, migrate or register what is declared"
            ) from error

    def _vector(self, value: Any) -> Vector:
        dim = serving_dim(self.settings)
        if isinstance(value, str):
            value = as_written(value, dim)
        if isinstance(value, str | Waveform) or is_picture(value):
            return offload(embed_query, serving_encoder(self.settings), value)
        zero = self.settings.metric_name != "cosine"
        return as_vector(value, dim, what="the query's vector", allow_zero=zero)


def serving_dim(settings: Settings) -> int:
    """Dimensions of the vectors that are there now."""
    return serving_encoder(settings).dim if serves_other(settings) else settings.dim


def as_written(text: str, dim: int) -> Vector | str:
    """The vector, where ``text`` is one of ``dim`` dimensions as pgvector writes it; else the text, to be embedded.

    That is what ``func.avg(Article.embedding)`` gives, whose type SQLAlchemy does not know.
    """
    if not text.startswith("[") or text.count(",") != dim - 1:
        return text
    try:
        return from_text(text)
    except VectorError:
        return text


class QueryVectorType(_Query, VECTOR):
    """A query's parameter as ``vector``."""

    cache_ok = True


class QueryHalfvec(_Query, HALFVEC):
    """A query's parameter as ``halfvec``."""

    cache_ok = True


@lru_cache(maxsize=1000)
def parameter_type(settings: Settings) -> QueryVectorType | QueryHalfvec | QueryBits:
    """The type of a query's parameter, as it is compared with a column of these settings.

    One for all its queries: a type keeps what SQLAlchemy finds out about it, 0.02 ms of each search.
    """
    if settings.metric_name in ("hamming", "jaccard"):
        return QueryBits(settings)
    return QueryHalfvec(settings) if compares_halfvec(settings) else QueryVectorType(settings)


class Narrowing(ColumnElement[bool]):
    """A condition that lets only candidates through, chosen by an index: what is left to order is ordered exactly."""

    def narrows(self, statement: Select[Any], compiler: SQLCompiler) -> bool:
        """Whether it does so in this statement."""
        raise NotImplementedError


def narrowed(statement: Any, compiler: SQLCompiler) -> bool:
    """Whether one of a statement's conditions leaves only candidates of it."""
    if not isinstance(statement, Select):
        return False
    return any(isinstance(part, Narrowing) and part.narrows(statement, compiler) for part in statement._where_criteria)


class SearchVector(ColumnElement[Any]):
    """A query vector for a column with a declared index. Compiles to itself where there is no ordered LIMIT.

    ``index``: the index's name, or None where it is not known. ``recall``: the level asked for.
    """

    __visit_name__ = "search_vector"
    # One child, so that a statement's cache key is quickly made: this is on the path of every search.
    _traverse_internals = [
        ("vector", InternalTraversal.dp_clauseelement),
        ("index", InternalTraversal.dp_string),
        ("recall", InternalTraversal.dp_plain_obj),
    ]

    def __init__(self, vector: ColumnElement[Any], index: str | None = None, recall: float | None = None) -> None:
        self.vector = vector
        self.index = index
        self.recall = recall
        self.type = vector.type

    def effort(
        self, settings: Settings, wanted: ColumnElement[int], compiler: SQLCompiler, *, filtered: bool = False
    ) -> ColumnElement[int]:
        """What the index must be asked for, to yield ``wanted`` rows."""
        index = None if self.index is None else name_literal(self.index, compiler)
        return effort(settings, index, self.recall, wanted, filtered=filtered)


def name_literal(name: str, compiler: SQLCompiler) -> ColumnElement[str]:
    """A relation's name as a string in the SQL."""
    return literal_column(compiler.render_literal_value(name, Text()))


@compiles(SearchVector)
def _compile(element: SearchVector, compiler: SQLCompiler, **options: Any) -> str:
    vector = element.vector
    settings = settings_of(vector.type)
    statement = compiler.stack[-1].get("selectable") if compiler.stack else None
    in_columns = bool(options.get("within_columns_clause"))
    if settings is not None and isinstance(statement, Select) and _orders_by_search(statement, in_columns, compiler):
        conditions = scan_settings(settings, element.effort(settings, wanted(statement), compiler))
        vector = select(vector).where(*conditions).scalar_subquery()
    return compiler.process(vector, **options)


def _orders_by_search(statement: Select[Any], in_columns: bool, compiler: SQLCompiler) -> bool:
    """Whether an index could serve the statement: its first rows are taken, in the order of a distance.

    Among the columns, the distance matters only if ORDER BY names its label instead of repeating it.
    """
    if (statement._limit_clause is None and statement._fetch_clause is None) or narrowed(statement, compiler):
        return False
    parts = [part for clause in statement._order_by_clauses for part in iterate(clause)]
    if in_columns and not any(isinstance(part, Label) for part in parts):
        return False
    return any(isinstance(part, SearchVector) for part in parts)


def wanted(statement: Select[Any]) -> ColumnElement[int]:
    """How many rows the index must yield, as SQL over the statement's own parameters."""
    limit = statement._limit_clause if statement._limit_clause is not None else statement._fetch_clause
    offset = statement._offset_clause
    return limit if offset is None else limit + offset  # type: ignore[return-value]


def scan_settings(
    settings: Settings,
    asked: ColumnElement[int],
    *,
    order: str = "strict_order",
    most: ColumnElement[str] | None = None,
) -> Iterator[ColumnElement[bool]]:
    """The conditions that set a scan of the declared index. ``most``: the rows that it may visit, by default all."""
    # With iterative scans a filter, or a LIMIT beyond ef_search, makes the scan go on instead of giving up.
    if isinstance(settings.index, HNSW):
        yield _set("hnsw.ef_search", cast(func.least(literal_column(str(MAX_EF_SEARCH)), asked), Text))
        yield _set("hnsw.iterative_scan", literal_column(f"'{order}'"))
        yield _set("hnsw.max_scan_tuples", literal_column("'2147483647'") if most is None else most)
        # Of work_mem, for what the scan has seen: where that is full it would end as well.
        yield _set("hnsw.scan_mem_multiplier", literal_column("'100'"))
    elif isinstance(settings.index, IVFFlat):
        lists = literal_column(str(probes(settings.index))) if reranks(settings) else asked
        yield _set("ivfflat.probes", cast(func.least(literal_column(str(settings.index.lists)), lists), Text))
        yield _set("ivfflat.iterative_scan", literal_column("'relaxed_order'"))


def _set(name: str, value: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.set_config(literal_column(f"'{name}'"), value, true()).is_not(None)
