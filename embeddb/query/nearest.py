"""``nearest``: the rows whose embedding is nearest to a text, a vector or another row."""

from __future__ import annotations

from typing import Any, Final, Self

from sqlalchemy import ColumnElement, Integer, Select, literal_column

from embeddb.orm.effort import level_of
from embeddb.orm.embedding_type import distance as measure
from embeddb.query.candidates import Candidates, Measured
from embeddb.query.embedding import AnyEmbedding, in_full, resolve

#: One for all, for SQLAlchemy finds out about a type once for each object.
_NUMBER: Final = Integer()


def nearest(
    embedding: AnyEmbedding,
    query: Any,
    *,
    distance: bool = False,
    score: bool = False,
    exact: bool = False,
    recall: float | None = None,
    filtered: bool | None = None,
) -> Select[Any]:
    """Select the rows in the order of their distance to ``query``, by the declared metric.

    ``embedding``: ``Article.embedding``, of an ``aliased`` class too, or a Core column. ``query``: what its encoder
    takes (a text), a vector, a mapped instance (its vector), ``bindparam("q")`` for a value given later, or an SQL
    expression. ``distance``, ``score``: add a column of that name after the entity; smaller and larger means
    nearer. ``exact``: read every row that the filters leave instead of using the index. ``recall``: the share of the
    truly nearest rows that is to be found, up to .999; by default what ``embeddb recall`` was told, or about .98,
    and .99 under filters. ``filtered``: True where rows are filtered by what the statement does not show, as by
    row-level security.

    Rows without a vector are left out. The result is an ordinary Select of the entity: add ``where``, ``join``,
    ``limit``. With a LIMIT the index serves it. Under filters the planner chooses between the index and reading all
    rows that they leave, and LIMIT is filled either way; where the index holds less than the vectors, its candidates
    are ordered by the vectors.
    """
    found = resolve(embedding, "nearest")
    settings = found.settings
    measured: ColumnElement[float] = measure(
        found.column, settings, settings.metric, query, exact=exact, recall=level_of(recall)
    )
    condition: ColumnElement[bool]
    if exact or settings.index is None:
        condition = found.column.is_not(None)
    else:
        measured = Measured(measured)
        condition = Candidates(measured, found.column, found.key, filtered)
    columns: list[ColumnElement[Any]] = []
    if distance:
        columns.append(measured.label("distance"))
    if score:
        columns.append(settings.metric.score(measured).label("score"))
    statement = Search(found.entity, *columns).where(condition)
    return statement.order_by(in_full(measured) if exact else measured)


class Search(Select[Any]):
    """A Select whose LIMIT, where it is the only number that matters, stands in the SQL instead of in a parameter.

    A generic plan takes an unknown LIMIT for a tenth of the rows, so dear that Postgres would make a plan anew for
    every execution, which takes a sixth of the search's time. Filters have plans with values of their own accord, and
    pages too many different numbers.
    """

    inherit_cache = True

    def limit(self, limit: Any) -> Self:
        """The statement with that LIMIT."""
        statement = super().limit(limit)
        alone = len(statement._where_criteria) == 1 and statement._offset_clause is None
        if alone and isinstance(limit, int):
            # Not a parameter that is rendered late, for that takes time in every execution.
            statement._limit_clause = literal_column(str(int(limit)), _NUMBER)
        return statement
