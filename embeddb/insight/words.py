"""Words for a vector: the nearest ones of a vocabulary, in memory or in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from embeddb.errors import QueryError
from embeddb.insight.match import Weight
from embeddb.orm.reflection import find_spec, reflect
from embeddb.query.bind import Bind, connected
from embeddb.query.embedding import AnyEmbedding, resolve

if TYPE_CHECKING:
    from embeddb.encoders import WordVectors
    from embeddb.vectors import Vector


def nearest_words(
    vector: Vector,
    among: WordVectors | str | AnyEmbedding,
    *,
    limit: int = 10,
    bind: Bind | None = None,
) -> list[Weight]:
    """The words nearest to ``vector``, of shape (dim,), with their scores, best first.

    ``among``: word vectors, or an embedding whose rows are words: its name or its attribute, and ``bind``, the database
    it is in. A row's word is the embedding's first source. Through the index, where there is one.
    """
    if not isinstance(among, str) and hasattr(among, "nearest_words"):
        return [Weight(*found) for found in among.nearest_words(vector, limit=limit)]
    if bind is None:
        raise QueryError("words of a table are read from a database: give its engine or connection as bind")
    with connected(bind, "nearest_words") as connection:
        column: Any = reflect(connection, find_spec(connection, among)) if isinstance(among, str) else among
        found = resolve(column)
        named: dict[str, Any] = {column.key: column for column in found.table.columns}
        measured: Any = found.distance(vector)
        statement = select(named[found.settings.sources[0]], measured)
        rows = connection.execute(statement.where(found.column.is_not(None)).order_by(measured).limit(limit))
        return [Weight(str(word), float(found.metric.score(distance))) for word, distance in rows]
