"""``similar_to``: rows like a row, like several, and unlike others, by the vectors that they have already."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import numpy as np
from sqlalchemy import (
    ARRAY,
    REAL,
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    case,
    cast,
    exists,
    func,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import InstanceState, QueryableAttribute

from embeddb.errors import QueryError
from embeddb.orm.index_expression import compares_halfvec
from embeddb.orm.settings import settings_of
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.query.embedding import AnyEmbedding, Embedding, resolve
from embeddb.query.given import key_of, number
from embeddb.query.nearest import nearest

Rows = Any  #: an entity or key, a sequence of them, or a mapping from them to weights

#: Metrics by which a sum's length changes no order: the others take a mean.
_SUMMED: Final = ("cosine", "inner_product")


@overload
def similar_to(
    rows: Rows,
    /,
    *,
    minus: Rows = (),
    distance: bool = ...,
    score: bool = ...,
    exact: bool = ...,
    recall: float | None = ...,
    exclude: bool = ...,
) -> Select[Any]: ...
@overload
def similar_to(
    embedding: AnyEmbedding,
    rows: Rows,
    /,
    *,
    minus: Rows = (),
    distance: bool = ...,
    score: bool = ...,
    exact: bool = ...,
    recall: float | None = ...,
    exclude: bool = ...,
) -> Select[Any]: ...
def similar_to(
    *embedding_and_rows: Any,
    minus: Rows = (),
    distance: bool = False,
    score: bool = False,
    exact: bool = False,
    recall: float | None = None,
    exclude: bool = True,
) -> Select[Any]:
    """Select the rows nearest to a row, or to a weighted sum of rows: ``similar_to(Article.embedding, {a: 1, b: .5})``.

    ``rows``: mapped instances or primary keys (a tuple for a key of several columns): one, a sequence, or a mapping
    to positive weights. ``minus``: the same, to be subtracted. Without an embedding, ``similar_to(article)``, it is
    the only one of the instances' class. ``exclude``: leave the named rows out. ``distance``, ``score``, ``exact``,
    ``recall``: as in ``nearest``; filters, joins and LIMIT likewise.

    The vectors are read and summed inside the statement. By cosine each counts by its direction, at length 1 (as in
    Mikolov, Yih and Zweig 2013); by inner product they are summed as they are; by a distance (L2, L1) they are
    averaged by weight. There are no results where none of the rows has a vector, or where they cancel out.
    """
    embedding, rows = _arguments(embedding_and_rows)
    found = resolve(embedding, "similar_to")
    if found.metric.name in ("hamming", "jaccard"):
        raise QueryError("similar_to sums vectors, and bits have no sum: search by the row itself with nearest")
    weights = _weights(found, rows, 1.0) + _weights(found, minus, -1.0)
    if not any(weight > 0 for _, weight in weights):
        raise QueryError("similar_to needs at least one row to be similar to")
    if found.metric.name not in _SUMMED and math.isclose(sum(weight for _, weight in weights), 0, abs_tol=1e-9):
        raise QueryError(
            f"similar_to: these weights add up to zero, and a mean by {found.metric.name} divides by their sum: "
            "give what is subtracted less weight"
        )
    query = _sum(found, _unnested(found, weights)).cte()
    vector = select(query.c.vector).scalar_subquery()
    statement = nearest(found.attribute, vector, distance=distance, score=score, exact=exact, recall=recall)
    # Not of a row's: Postgres looks at it once, before the scan.
    statement = statement.where(vector.is_not(None))
    return statement.where(_is_none_of(found, [key for key, _ in weights])) if exclude else statement


def _arguments(given: tuple[Any, ...]) -> tuple[AnyEmbedding, Rows]:
    if len(given) == 2:
        return given[0], given[1]
    if len(given) != 1:
        raise QueryError("similar_to takes an embedding and rows, or mapped instances alone")
    first = next(iter(_listed(given[0])), None)
    state = inspect(first, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise QueryError(f"similar_to: say which embedding as well, such as similar_to(Article.embedding, {first!r})")
    class_ = state.mapper.class_
    keys = [prop.key for prop in state.mapper.column_attrs if settings_of(prop.columns[0].type) is not None]
    if len(keys) != 1:
        raise QueryError(
            f"similar_to: {class_.__name__} has {len(keys) or 'no'} embeddings"
            + (f" ({', '.join(keys)}): give one first, as {class_.__name__}.{keys[0]}" if keys else "")
        )
    attribute: QueryableAttribute[Any] = getattr(class_, keys[0])
    return attribute, given[0]


def _listed(rows: Rows) -> Iterable[Any]:
    if isinstance(rows, Mapping | list | set | frozenset):
        return rows
    if isinstance(rows, np.ndarray | Iterator):
        return list(rows)
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes | tuple):
        return rows
    if isinstance(rows, tuple) and (not rows or isinstance(inspect(rows[0], raiseerr=False), InstanceState)):
        return rows  # any other tuple is a key of several columns
    return [rows]


def _weights(embedding: Embedding, rows: Rows, sign: float) -> list[tuple[tuple[Any, ...], float]]:
    """Keys with their weights."""
    weights = rows if isinstance(rows, Mapping) else dict.fromkeys(_listed(rows), 1.0)
    for row, weight in weights.items():
        if not 0 < number(weight, f"similar_to: the weight of {row!r}") < math.inf:
            raise QueryError(f"similar_to: the weight of {row!r} is {weight!r}: give a positive number, or use minus")
    return [(_key(embedding, row), sign * float(weight)) for row, weight in weights.items()]


def _key(embedding: Embedding, row: Any) -> tuple[Any, ...]:
    state = inspect(row, raiseerr=False)
    if isinstance(state, InstanceState):
        if state.identity is None:
            raise QueryError(
                f"similar_to: this {state.mapper.class_.__name__} is new: flush it first, or search by it with nearest"
            )
        if state.mapper.local_table is not embedding.table and embedding.table not in state.mapper.tables:
            raise QueryError(f"similar_to: {state.mapper.class_.__name__} is no row of {embedding.table}")
        return tuple(state.identity)
    return key_of(row, embedding.key, embedding.table, "similar_to")


def _arrays(embedding: Embedding, keys: Sequence[tuple[Any, ...]]) -> list[ColumnElement[Any]]:
    """The keys as one array a column, so that any number of them makes the same statement."""
    columns = zip(*keys, strict=True)
    return [
        cast(bindparam("keys", list(values), ARRAY(column.type), unique=True), ARRAY(column.type))
        for column, values in zip(embedding.key, columns, strict=True)
    ]


def _unnested(embedding: Embedding, weights: Sequence[tuple[tuple[Any, ...], float]]) -> FromClause:
    real = ARRAY(REAL)
    factors = cast(bindparam("weights", [weight for _, weight in weights], real, unique=True), real)
    names = [f"key{number}" for number in range(len(embedding.key))]
    return (
        func.unnest(*_arrays(embedding, [key for key, _ in weights]), factors)
        .table_valued(*names, "weight")
        .render_derived()
    )


def _sum(embedding: Embedding, given: FromClause) -> Select[Any]:
    """One row with the query's vector, NULL where there is none."""
    source = embedding.another()
    stored = source.column if embedding.settings.storage == "vector" else cast(source.column, VECTOR())
    weight = given.c.weight
    unit = func.l2_normalize(stored) if embedding.metric.name == "cosine" else stored
    total: ColumnElement[Any] = func.sum(_times(unit, weight), type_=VECTOR())
    if embedding.metric.name == "cosine":
        total = case((func.vector_norm(total) > literal_column("1e-6"), total))
    elif embedding.metric.name not in _SUMMED:
        total = _times(total, literal_column("1") / func.nullif(func.sum(weight), literal_column("0")))
    if compares_halfvec(embedding.settings):
        total = cast(total, HALFVEC())
    found = source.column.is_not(None)
    return select(total.label("vector")).select_from(source.entity).join(given, source.is_row(given.c)).where(found)


def _times(vector: ColumnElement[Any], number: ColumnElement[Any]) -> ColumnElement[Any]:
    """The vector by a number: pgvector multiplies element by element only, so the number fills a vector."""
    dimensions = func.coalesce(func.vector_dims(vector), literal_column("1"))  # of no vector: array_fill takes no NULL
    filled = func.array_fill(cast(number, REAL), array([dimensions]))
    return vector * cast(filled, VECTOR())


def _is_none_of(embedding: Embedding, keys: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    arrays = _arrays(embedding, keys)
    if len(arrays) == 1:
        return embedding.key[0] != func.all(arrays[0])
    names = [f"key{number}" for number in range(len(arrays))]
    named = func.unnest(*arrays).table_valued(*names).render_derived()
    return ~exists().where(embedding.is_row(named.c))
