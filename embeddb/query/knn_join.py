"""``knn_join``: for each row of one table, the nearest rows of another, each found through the index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, not_, select, true

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.query.lateral import nearest_to
from embeddb.query.pool import Anchor


def knn_join(
    left: AnyEmbedding,
    right: AnyEmbedding,
    k: int = 10,
    *,
    among: Select[Any] | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Select, for each row of ``left``, the ``k`` rows of ``right`` nearest to it: ``(left, right, distance)``.

    ``left``, ``right``: ``Question.embedding``, ``Article.embedding``, of aliased classes too, or Core columns, by
    equal encoders. Of a table with itself, ``knn_join(Article.embedding, aliased(Article).embedding)``, a row is no
    neighbour of its own. ``among``: a select of right's entity whose filters and joins say which rows to search.
    ``exact``: read every row of right for each of left.

    Filters on left's entity make fewer searches: ``knn_join(...).where(Question.open)``; those on right's say, like
    ``among``, which rows to search; those that compare the two thin out what was found. To limit left, alias it to
    a subquery: ``aliased(Question, select(Question).limit(100).subquery())``. Rows without a vector are left out.
    """
    outer, inner = resolve(left, "knn_join"), resolve(right, "knn_join")
    if outer.column.table is inner.column.table:
        raise QueryError(f"knn_join: both sides are {outer.table}: alias one of them, as in aliased(Article).embedding")
    ours, theirs = outer.settings, inner.settings
    if ours is not theirs and ours.encoder != theirs.encoder:
        raise QueryError(
            f"knn_join: {outer.column} is by {ours.encoder!r} and {inner.column} by {theirs.encoder!r}: "
            "vectors of two encoders have no distance; embed one of them with the other's encoder"
        )
    if outer.table is inner.table:
        among = (select(inner.entity) if among is None else among).where(not_(outer.is_row(inner.key)))
    near = nearest_to(inner, outer.column, k, among, exact, what="knn_join")
    same = Anchor(inner.is_row(near.c), last=True)
    statement = select(outer.entity, inner.entity, near.c.distance).select_from(outer.entity).join(near, true())
    statement = statement.join(inner.entity, same).where(outer.column.is_not(None))
    return statement.order_by(*outer.key, near.c.distance)
