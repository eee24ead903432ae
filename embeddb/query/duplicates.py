"""``duplicates``: pairs of rows that nearly are the same, each found through the index.

For each row the index is read from that row on, until it has given some rows beyond the threshold, by a window's run
condition as in ``within``. Each pair comes once, with the row of the smaller key, and the rows come in the order of
their keys: so a long run can stream, and go on after the last key that it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Float, Select, and_, bindparam, cast, func, literal_column, select, true, tuple_

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.query.given import number
from embeddb.query.lateral import sql_type
from embeddb.query.scan import MARGIN, few, holds_distances, relaxed

Key = TypeVar("Key")


def duplicates(
    embedding: AnyEmbedding,
    other: AnyEmbedding,
    *,
    distance: float | None = None,
    score: float | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Select the pairs of rows at most ``distance`` apart, or with at least that ``score``: ``(one, other, distance)``.

    ``embedding``, ``other``: of a mapped class and an alias of it, ``duplicates(Article.embedding,
    aliased(Article).embedding, score=.95)``. The first row of a pair has the smaller key. Pairs come in the order of
    the first row's key, then by distance. Filters of the first, ``.where(Article.id > last)``, make fewer searches, so
    that a run is resumed, or shared out by ranges of keys; filters of the other thin out what was found.
    ``exact``: compare every two rows; else a few pairs may be missed, as a graph cannot promise to reach every row.

    ``execution_options(yield_per=500)`` streams them.
    """
    one, two = resolve(embedding, "duplicates"), resolve(other, "duplicates")
    if one.column.table is two.column.table or one.table is not two.table:
        raise QueryError("duplicates takes an embedding and the same one of an alias: aliased(Article).embedding")
    if (distance is None) == (score is None):
        raise QueryError("duplicates takes a distance or a score: the first is an upper bound, the second a lower one")
    limit = number(distance if score is None else score, "duplicates: the bound")
    bound = bindparam("bound", limit, Float(53), unique=True)

    def inside(measured: ColumnElement[Any]) -> ColumnElement[bool]:
        return measured <= bound if score is None else one.metric.score(measured) >= bound

    later = _later(one.key, two.key)
    if exact or not holds_distances(one.settings):
        measured = two.distance(one.column, exact=True)
        statement = select(one.entity, two.entity, measured.label("distance")).select_from(one.entity)
        statement = statement.join(two.entity, and_(later, inside(measured), two.column.is_not(None)))
        return statement.where(one.column.is_not(None)).order_by(*one.key, measured)
    source, outside = two.another(), one.column.table
    # In a subquery, because the settings go around it in another, which must not read the table anew.
    vector = cast(select(one.column).correlate(outside).scalar_subquery(), sql_type(one.settings))
    near = relaxed(source, one.as_query(vector)).label("distance")
    scan = select(*source.key, near).where(source.column.is_not(None)).order_by(near).correlate(outside).subquery()
    beyond = func.count().filter(~inside(scan.c.distance)).over(order_by=scan.c.distance, rows=(None, 0))
    counted = select(*scan.c, beyond.label("beyond")).correlate(outside).subquery()
    margin = cast(literal_column(str(MARGIN)), func.count().type)
    seen = few(select(counted).where(counted.c.beyond < margin).correlate(outside), outside)
    found = select(seen).where(inside(seen.c.distance)).correlate(outside).lateral("near")
    same = and_(*(column == key for column, key in zip(two.key, found.c, strict=False)))
    statement = select(one.entity, two.entity, found.c.distance).select_from(one.entity).join(found, true())
    statement = statement.join(two.entity, same).where(one.column.is_not(None), later)
    return statement.order_by(*one.key, found.c.distance)


def _later(one: tuple[ColumnElement[Any], ...], two: tuple[ColumnElement[Any], ...]) -> ColumnElement[bool]:
    return one[0] < two[0] if len(one) == 1 else tuple_(*one) < tuple_(*two)


def groups(pairs: Iterable[tuple[Key, Key]]) -> list[list[Key]]:
    """What the pairs join, directly or by others: lists of at least two, in the order in which they came.

    Union-find with path halving (Tarjan and van Leeuwen 1984). It holds every key, and no pair.
    """
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for one, two in pairs:
        parent[root(two)] = root(one)
    found: dict[Key, list[Key]] = {}
    for key in parent:
        found.setdefault(root(key), []).append(key)
    return list(found.values())
