"""``classify``: what the labels of the nearest rows say of a text that has none.

The k-nearest-neighbour rule (Cover and Hart 1967), with votes that are alike or weighted by distance (Dudani 1976).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, Float, Integer, Select, bindparam, cast, func, literal_column, select
from sqlalchemy.orm import QueryableAttribute

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.query.for_each import for_each
from embeddb.query.given import whole
from embeddb.query.pool import nearest_in, same

Votes = Literal["distance", "uniform"]

#: A distance below this counts as this: the copies of a text outvote all others, and nothing is divided by 0.
NEAREST = 1e-6


def classify(
    embedding: AnyEmbedding,
    query: Any,
    *,
    label: QueryableAttribute[Any] | ColumnElement[Any],
    k: int = 15,
    weights: Votes = "distance",
    among: Select[Any] | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Select ``(label, votes, share)`` of the ``k`` rows nearest to ``query``, the label with most votes first.

    ``label``: a column of the entity, or of a table that you join. ``weights``: each row's vote is 1 / distance, or
    1 ("uniform"). ``share``: of all votes, from 0 to 1. Rows without a label have no vote. The result is an ordinary
    Select; its ``where`` and ``join`` count in choosing the k rows: ``where(Article.topic.is_not(None))`` lets only
    labelled rows be neighbours.

    ``query`` may be a list of texts: then rows are ``(ordinal, label, votes, share)``, ``ordinal`` a text's place in
    the list from 0, and ``among``, a select of the entity, says which rows may be neighbours.
    """
    found = resolve(embedding, "classify")
    if weights not in ("distance", "uniform"):
        raise QueryError(f"classify: weights are 'distance' or 'uniform', not {weights!r}")
    if weights == "distance" and found.settings.metric_name == "inner_product":
        raise QueryError("classify: an inner product is no distance to divide by: use weights='uniform'")
    k = whole(k, "classify: k is the number of neighbours")
    if not isinstance(label, QueryableAttribute | ColumnElement):
        raise QueryError(f"classify: label is a column, like Article.topic, not {label!r}")
    name: ColumnElement[Any] = label.__clause_element__() if isinstance(label, QueryableAttribute) else label
    if _are_several(query):
        rows = for_each(embedding, list(query), k, among=among, exact=exact)
        ordinal, distance = rows.selected_columns["ordinal"], rows.selected_columns["distance"]
        figures = _figures(name, _vote(distance, weights), [ordinal])
        statement = rows.order_by(None).with_only_columns(ordinal, *figures)
        statement = statement.group_by(ordinal, name).having(func.count(name) > literal_column("0"))
        return statement.order_by(ordinal, figures[1].desc(), name)
    if among is not None:
        raise QueryError("classify: among is for a list of texts; for one text, filter the result with where")
    near = nearest_in(found, query, bindparam("neighbours", k, Integer, unique=True), exact=exact).subquery()
    figures = _figures(name, _vote(near.c.distance, weights), [])
    statement = select(*figures).select_from(found.entity).join(near, same(near, found.key))
    voting = func.count(name) > literal_column("0")
    return statement.group_by(name).having(voting).order_by(figures[1].desc(), name)


def _are_several(query: Any) -> bool:
    if isinstance(query, np.ndarray):
        return query.ndim > 1
    return isinstance(query, list | tuple) and not all(isinstance(each, int | float) for each in query)


def _vote(distance: ColumnElement[Any], weights: Votes) -> ColumnElement[float]:
    if weights == "uniform":
        return cast(literal_column("1"), Float(53))
    least = literal_column(repr(NEAREST), Float(53))
    return literal_column("1.0", Float(53)) / func.greatest(cast(distance, Float(53)), least, type_=Float(53))


def _figures(
    name: ColumnElement[Any], vote: ColumnElement[float], group: list[ColumnElement[Any]]
) -> list[ColumnElement[Any]]:
    """``label``, ``votes`` and ``share``; a share is of the votes in ``group``."""
    votes = func.sum(vote, type_=Float(53))
    every = func.sum(votes, type_=Float(53)).over(partition_by=group or None)
    return [name.label("label"), votes.label("votes"), (votes / every).label("share")]
