"""``page``: a search page by page, by keyset, so that what comes and goes between two pages shifts nothing.

The order is by distance and then by primary key, which makes it total: rows at the same distance are told apart.
An index knows the distance only, and that in a relaxed order, so a page takes from it some rows more than its own, and
all that tie with the last of those (FETCH … WITH TIES), and sorts them. See https://www.postgresql.org/docs/current/sql-select.html#SQL-LIMIT.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    FromClause,
    Row,
    Select,
    bindparam,
    func,
    inspect,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstanceState

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, Embedding, in_full, resolve
from embeddb.query.given import key_of, number, whole
from embeddb.query.pool import Anchor, Filters
from embeddb.query.scan import MARGIN, holds_distances, relaxed


def page(
    embedding: AnyEmbedding,
    query: Any,
    size: int = 20,
    *,
    after: Any = None,
    among: Select[Any] | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Select one page of the rows nearest to ``query``: ``size`` rows of ``(entity, distance)``.

    ``embedding``, ``query``, ``exact``: as for ``nearest``. ``after``: where the last page ended, as its last row, or
    as ``(distance, key)``, the key a tuple where it has several columns; None for the first page. ``where`` and
    ``join``, the same for each page, say which rows to search; so does ``among``, a select of the entity.

    No row comes twice, and a page is full while there are rows, whatever is written meanwhile. With ``exact`` none that
    was there all along is passed over; the index may pass over one that it finds too late, or not at all. Each page
    reads from the nearest row on, so that a late page takes longer than an early one.
    """
    found = resolve(embedding, "page")
    size = whole(size, "page: size is the number of rows")
    vector = found.parameter(query)
    measured = found.distance(vector, exact=True)
    rows = found.rows(among, "page").where(Filters(found.key))
    if after is not None:
        rows = rows.where(tuple_(measured, *found.key) > tuple_(*_position(found, after)))
    everything = rows.add_columns(measured.label("distance")).order_by(in_full(measured), *found.key).limit(size)
    if exact or not holds_distances(found.settings):
        first: FromClause = everything.subquery()
    else:
        scanned = relaxed(found, vector).label("distance")
        near = rows.add_columns(scanned).order_by(scanned).fetch(size + MARGIN, with_ties=True).cte()
        # A graph can end early, as where hundreds of copies of one row are each other's only neighbours.
        enough = select(func.count() >= size).select_from(near).scalar_subquery()
        first = union_all(select(near).where(enough), everything.where(~enough)).subquery()
    statement = select(found.entity, first.c.distance).join(first, Anchor(found.is_row(first.c)))
    return statement.order_by(in_full(first.c.distance), *found.key).limit(size)


def _position(embedding: Embedding, after: Any) -> list[ColumnElement[Any]]:
    if isinstance(after, Row):
        state = inspect(after[0], raiseerr=False)
        if not isinstance(state, InstanceState) or state.identity is None or not hasattr(after, "distance"):
            raise QueryError("page: after is the last page's last row, or (distance, key)")
        distance, key = after.distance, state.identity
    else:
        try:
            distance, key = after
        except (TypeError, ValueError):
            raise QueryError(f"page: after is the last page's last row, or (distance, key), not {after!r}") from None
    values = key_of(tuple(key) if isinstance(key, list) else key, embedding.key, embedding.table, "page")
    far = number(distance, "page: after is (distance, key), and a distance")
    position: list[ColumnElement[Any]] = [bindparam("distance", far, Float(53), unique=True)]
    for column, value in zip(embedding.key, values, strict=True):
        position.append(bindparam("key", value, column.type, unique=True))
    return position
