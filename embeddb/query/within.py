"""``within``: all the rows within a distance of a query, or above a score.

A graph index cannot promise all of them: some rows may not be reached from where a search begins (Malkov and
Yashunin 2018), and it is searched for a number of rows, not for a radius. So ``within`` reads every row unless it is
told otherwise, and may do it in parallel.

Through the index it goes on until it has seen some rows beyond the radius. ``count(*) FILTER (distance > radius)
OVER (ORDER BY distance)`` only ever grows, so that ``WHERE count < 100`` is a run condition: Postgres stops reading
where it fails, as it does with row_number. See https://www.postgresql.org/docs/release/15.0/, "window functions".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Float,
    Select,
    bindparam,
    cast,
    func,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.sql.elements import literal_column

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, Embedding, in_full, resolve
from embeddb.query.given import number
from embeddb.query.scan import MARGIN, few, holds_distances, relaxed

Test = Callable[[ColumnElement[Any]], ColumnElement[bool]]


def within(
    embedding: AnyEmbedding,
    query: Any,
    *,
    distance: float | None = None,
    score: float | None = None,
    exact: bool = True,
) -> Select[Any]:
    """Select the rows whose distance to ``query`` is at most ``distance``, or their score at least ``score``.

    Give one of the two. ``embedding``, ``query``: as for ``nearest``. A row of the result is the entity with a column
    ``distance`` or ``score``, whichever was asked for, the nearest first. It is complete, and an ordinary Select: add
    ``where``, ``join``, ``limit``; ``execution_options(yield_per=500)`` streams a large one.

    ``exact=False``: through the index, which may leave a few rows out. It then takes time by the rows within the
    radius, not by those of the table; filters are applied to what the index has found.
    """
    found = resolve(embedding, "within")
    if (distance is None) == (score is None):
        raise QueryError("within takes a distance or a score: the first is an upper bound, the second a lower one")
    name = "distance" if score is None else "score"
    bound = number(distance if score is None else score, f"within: the {name}")
    limit = bindparam("bound", bound, Float(53), unique=True)

    def figure(measured: ColumnElement[Any]) -> ColumnElement[Any]:
        shown: ColumnElement[Any] = measured if score is None else found.metric.score(measured)
        return shown

    def inside(measured: ColumnElement[Any]) -> ColumnElement[bool]:
        return figure(measured) <= limit if score is None else figure(measured) >= limit

    if exact or not holds_distances(found.settings):
        measured = found.distance(query, exact=True)
        statement = select(found.entity, figure(measured).label(name)).where(found.column.is_not(None))
        return statement.where(inside(measured)).order_by(in_full(measured))
    near = few(_through_index(found, query, inside))
    same = found.is_row(near.c)
    statement = select(found.entity, figure(near.c.distance).label(name)).join(near, same)
    return statement.order_by(in_full(near.c.distance))


def _through_index(embedding: Embedding, query: Any, inside: Test) -> CompoundSelect[Any]:
    """Keys and distances of the rows inside, as an index scan finds them; by reading all, where it ended early."""
    source = embedding.another()
    vector = source.parameter(query)
    measured = relaxed(source, vector).label("distance")
    # An order of its own: a subquery whose columns call set_config is not merged into the one around it.
    scan = select(*source.key, measured).where(source.column.is_not(None)).order_by(measured).subquery()
    beyond = func.count().filter(~inside(scan.c.distance)).over(order_by=scan.c.distance, rows=(None, 0))
    counted = select(*scan.c, beyond.label("beyond")).subquery()
    # No limit, though the planner cannot know it, and so expects that the scan need not run to its end.
    unlimited = select(cast(null(), BigInteger)).scalar_subquery()
    margin = cast(literal_column(str(MARGIN)), BigInteger)
    seen = select(counted).where(counted.c.beyond < margin).limit(unlimited).cte()
    # A graph can end early, as where hundreds of copies of one row are each other's only neighbours.
    passed = (select(func.max(seen.c.beyond)).scalar_subquery() + literal_column("1")) == margin
    near = [column for column in seen.c if column.key != "beyond"]
    every = source.distance(vector, exact=True)
    return union_all(
        select(*near).where(inside(seen.c.distance), passed),
        select(*source.key, every).where(source.column.is_not(None), inside(every), passed.is_not(true())),
    )
