"""A pool of candidates inside a statement, chosen under the filters that the statement gets later.

``hybrid``, ``diverse``, ``classify`` and ``page`` join their entity with a subquery of keys and figures; ``for_each``
and ``knn_join`` join such subqueries, one for each query, with it. What is added to the statement afterwards, ``where``
and ``join``, must choose the candidates as well: filtering what was chosen without it would give too few rows. So each
select inside has the condition ``Filters``, which compiles, when the whole
statement is known, to the criteria of the statement around it; where that joins other tables, to ``key IN (SELECT key
FROM … WHERE …)``. The statement around it is known by its join's condition, an ``Anchor``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, FromClause, Select, and_, select, true, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import Join
from sqlalchemy.sql.visitors import InternalTraversal, iterate

from embeddb.orm.effort import level_of
from embeddb.orm.embedding_type import distance
from embeddb.query.candidates import Candidates, Measured, froms_of, is_table
from embeddb.query.embedding import Embedding, in_full


class Anchor(ColumnElement[bool]):
    """The condition of the join with a pool; it marks the statement whose filters count inside the pool.

    ``last``: whether it is the entity that is joined with the pool, and not the pool with the entity.
    """

    __visit_name__ = "anchor"
    type = Boolean()
    _traverse_internals = [
        ("condition", InternalTraversal.dp_clauseelement),
        ("last", InternalTraversal.dp_boolean),
    ]

    def __init__(self, condition: ColumnElement[bool], last: bool = False) -> None:
        self.condition = condition
        self.last = last

    def self_group(self, against: Any = None) -> Anchor:
        """Itself: it compiles to what stands after ON."""
        return self

    @property
    def _from_objects(self) -> list[FromClause]:
        return self.condition._from_objects


@compiles(Anchor)
def _compile_anchor(element: Anchor, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.condition, **options)


class Filters(ColumnElement[bool]):
    """The criteria of the anchored statement around, for the rows with the primary key ``identity``."""

    __visit_name__ = "filters"
    type = Boolean()
    _traverse_internals = [("identity", InternalTraversal.dp_clauseelement_tuple)]

    def __init__(self, identity: tuple[ColumnElement[Any], ...]) -> None:
        self.identity = identity

    def self_group(self, against: Any = None) -> Filters:
        """Itself: it brings its own parentheses."""
        return self


@compiles(Filters)
def _compile_filters(element: Filters, compiler: SQLCompiler, **options: Any) -> str:
    criteria, froms = around(compiler)
    if not criteria and is_whole(froms):
        return compiler.process(true(), **options)
    if is_whole(froms):
        return f"({compiler.process(and_(*criteria), **options)})"
    key = tuple_(*element.identity) if len(element.identity) > 1 else element.identity[0]
    rows = select(*element.identity).select_from(*froms).where(*criteria)
    # As in FROM, where nothing correlates: its table is another reading of the one outside.
    return f"{compiler.process(key, **options)} IN ({compiler.process(rows, asfrom=True)})"


def around(compiler: SQLCompiler) -> tuple[Sequence[ColumnElement[bool]], list[FromClause]]:
    """The criteria of the innermost anchored statement that is being compiled, and its FROM without the pool.

    Less what refers to the pool or to what stands before it, as ``score > .03``: that thins out what was found.
    """
    for entry in reversed(compiler.stack):
        statement = entry.get("selectable")
        if isinstance(statement, Select):
            froms = froms_of(statement, compiler)
            pools: set[FromClause] = set()
            without = [_without_pool(source, pools) for source in froms]
            if pools:
                return [one for one in statement._where_criteria if not _touches(one, pools)], without
    return (), []


def _touches(condition: Any, pools: set[FromClause]) -> bool:
    return condition is not None and any(getattr(part, "table", None) in pools for part in iterate(condition))


def _without_pool(source: Any, pools: set[FromClause]) -> Any:
    """A FROM less its join with a pool, and less what that brings along; these are added to ``pools``."""
    if not isinstance(source, Join):
        return source
    if isinstance(source.onclause, Anchor):
        entity, pool = (source.right, source.left) if source.onclause.last else (source.left, source.right)
        pools.update((pool.left, pool.right) if isinstance(pool, Join) else (pool,))
        return entity
    left = _without_pool(source.left, pools)
    if left is source.left:
        return source
    if _touches(source.onclause, pools):
        pools.add(source.right)
        return left
    return Join(left, source.right, source.onclause, source.isouter, source.full)


def is_whole(froms: Sequence[Any]) -> bool:
    """Whether there is nothing but one table."""
    return not froms or (len(froms) == 1 and is_table(froms[0]))


class _Candidates(Candidates):
    """Candidates of a pool: rows are filtered where the statement around the pool filters them."""

    inherit_cache = True

    def has_filters(self, statement: Select[Any], compiler: SQLCompiler) -> bool:
        """Whether rows of the table may be left out around the pool."""
        criteria, froms = around(compiler)
        return bool(self.filtered) or bool(criteria) or not is_whole(froms)


def nearest_in(
    embedding: Embedding, query: Any, limit: ColumnElement[int], *, exact: bool = False, recall: float | None = None
) -> Select[Any]:
    """The keys (``key0`` …) and ``distance`` of the ``limit`` rows nearest to ``query``, as ``nearest`` finds them."""
    settings = embedding.settings
    measured: ColumnElement[float] = distance(
        embedding.column, settings, settings.metric, query, exact=exact, recall=level_of(recall)
    )
    condition: ColumnElement[bool] = embedding.column.is_not(None)
    if not exact and settings.index is not None:
        measured = Measured(measured)
        condition = _Candidates(measured, embedding.column, embedding.key)
    statement = select(*keys(embedding.key), measured.label("distance")).where(condition, Filters(embedding.key))
    return statement.order_by(in_full(measured) if exact else measured).limit(limit)


def keys(identity: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """The columns of a key, under the names that they have in a pool."""
    return [column.label(f"key{number}") for number, column in enumerate(identity)]


def keys_of(pool: FromClause, identity: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """The key's columns in a pool."""
    return [pool.c[f"key{number}"] for number in range(len(identity))]


def same(pool: FromClause, identity: Sequence[ColumnElement[Any]]) -> Anchor:
    """The condition that joins an entity with its pool."""
    pairs = zip(identity, keys_of(pool, identity), strict=True)
    return Anchor(and_(*(column == key for column, key in pairs)))
