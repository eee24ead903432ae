"""``within``: all the rows within a distance of a query, or above a score.

A graph index cannot promise all of them: some rows may not be reached from where a search begins (Malkov and
Yashunin 2018), and it is searched for a number of rows, not for a radius. So ``within`` reads every row unless it is
told otherwise, and may do it in parallel.

Through the index it goes on until it has seen some rows beyond the radius. ``count(*) FILTER (distance > radius)
OVER (ORDER BY distance)`` only ever grows, so that ``WHERE count < 100`` is a run condition: Postgres stops reading
where it fails, as it does with row_number. See https://www.postgresql.org/docs/release/15.0/, "window functions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Float, Select, and_, bindparam, cast, func, null, select, true
from sqlalchemy.sql.elements import literal_column

from embeddb.errors import QueryError
from embeddb.orm.query_vector import probes, query_expression
from embeddb.orm.settings import Settings
from embeddb.query.embedding import AnyEmbedding, Embedding, in_full, resolve
from embeddb.spec import IVFFlat, VectorIndex

#: Rows beyond the radius to be seen before an index scan ends: relaxed order may still bring some from within it.
BEYOND: Final = 100
EF_SEARCH: Final = 200
#: Of work_mem, for what an index scan has seen; beyond that it would end early.
SCAN_MEMORY: Final = 100

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
    bound = distance if score is None else score
    if bound is None or bound != bound:
        raise QueryError(f"within: {bound!r} is no {name}")
    limit = bindparam("bound", float(bound), Float(53), unique=True)

    def figure(measured: ColumnElement[Any]) -> ColumnElement[Any]:
        shown: ColumnElement[Any] = measured if score is None else found.metric.score(measured)
        return shown

    def inside(measured: ColumnElement[Any]) -> ColumnElement[bool]:
        return figure(measured) <= limit if score is None else figure(measured) >= limit

    if exact or not _searchable(found.settings.index):
        measured = found.distance(query, exact=True)
        statement = select(found.entity, figure(measured).label(name)).where(found.column.is_not(None))
        return statement.where(inside(measured)).order_by(in_full(measured))
    near = _through_index(found, query, inside).subquery()
    same = and_(*(column == key for column, key in zip(found.key, near.c, strict=False)))
    statement = select(found.entity, figure(near.c.distance).label(name)).join(near, same)
    return statement.order_by(in_full(near.c.distance))


def _through_index(embedding: Embedding, query: Any, inside: Test) -> Select[Any]:
    """Keys and distances of the rows inside, as an index scan finds them."""
    source = embedding.another()
    vector = select(query_expression(query, source.settings, exact=True)).where(*_scan_settings(source.settings))
    measured = source.distance(vector.scalar_subquery()).label("distance")
    # An order of its own: a subquery whose columns call set_config is not merged into the one around it.
    scan = select(*source.key, measured).where(source.column.is_not(None)).order_by(measured).subquery()
    beyond = func.count().filter(~inside(scan.c.distance)).over(order_by=scan.c.distance, rows=(None, 0))
    counted = select(*scan.c, beyond.label("beyond")).subquery()
    keys = (counted.c[column.key] for column in scan.c)
    # No limit, though the planner cannot know it, and so expects that the scan need not run to its end.
    unlimited = select(cast(null(), BigInteger)).scalar_subquery()
    most = cast(literal_column(str(BEYOND)), BigInteger)
    return select(*keys).where(counted.c.beyond < most, inside(counted.c.distance)).limit(unlimited)


def _searchable(index: VectorIndex | None) -> bool:
    """Whether the index holds distances, and not only candidates for them."""
    return index is not None and index.cast != "binary" and index.prefix is None


def _scan_settings(settings: Settings) -> Iterator[ColumnElement[bool]]:
    if isinstance(settings.index, IVFFlat):
        wanted = {"ivfflat.probes": str(probes(settings.index)), "ivfflat.iterative_scan": "relaxed_order"}
    else:
        wanted = {
            "hnsw.ef_search": str(EF_SEARCH),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": "2147483647",
            "hnsw.scan_mem_multiplier": str(SCAN_MEMORY),
        }
    for name, value in wanted.items():
        yield func.set_config(literal_column(f"'{name}'"), literal_column(f"'{value}'"), true()).is_not(None)
