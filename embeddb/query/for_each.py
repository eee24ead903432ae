"""``for_each``: a batch of searches in one statement and one round trip, each through the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Dialect,
    Select,
    Text,
    bindparam,
    cast,
    func,
    inspect,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.orm import InstanceState
from sqlalchemy.types import TypeDecorator

from embeddb.encoders import embed_queries
from embeddb.errors import EmbeddbError, QueryError
from embeddb.orm.bit_types import QueryBits
from embeddb.orm.offload import offload
from embeddb.orm.query_vector import as_written, parameter_type, serving_dim
from embeddb.orm.serving import serving_encoder
from embeddb.orm.settings import Settings
from embeddb.orm.types import unwrapped
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.query.given import listed
from embeddb.query.lateral import nearest_to, sql_type
from embeddb.query.pool import Anchor
from embeddb.vectors import to_text
from embeddb.vectors.bits import as_bits


def for_each(
    embedding: AnyEmbedding,
    queries: Sequence[Any] | BindParameter[Any],
    k: int = 10,
    *,
    among: Select[Any] | None = None,
    exact: bool = False,
) -> Select[Any]:
    """Select the ``k`` rows nearest to each of several queries: rows of ``(ordinal, entity, distance)``.

    ``embedding``: as for ``nearest``. ``queries``: texts or vectors, or ``bindparam("qs")`` for a list given later;
    ``ordinal`` is a query's place in it, counted from 0. Results come in the order of the queries, the nearest first.
    ``where`` and ``join`` say which rows to search; so does ``among``, ``select(Article).where(Article.year > 1950)``.
    Conditions on ``ordinal`` or ``distance`` thin out what was found.
    ``exact``: read every row for every query.

    The texts are encoded when the statement executes; one compiled statement serves lists of any length.
    """
    found = resolve(embedding, "for_each")
    given = queries if isinstance(queries, BindParameter) else bindparam("queries", _listed(queries), unique=True)
    listed = cast(type_coerce(given, QueryTexts(found.settings)), ARRAY(Text))
    texts = func.unnest(listed).table_valued("text", with_ordinality="place").render_derived()
    # A common table expression, so that each text is read as a vector once.
    each = (
        select(
            (texts.c.place - literal_column("1")).label("ordinal"),
            cast(texts.c.text, sql_type(found.settings)).label("vector"),
        )
        .cte()
        .prefix_with("MATERIALIZED")
    )
    near = nearest_to(found, each.c.vector, k, among, exact, what="for_each")
    same = Anchor(found.is_row(near.c), last=True)
    statement = select(each.c.ordinal, found.entity, near.c.distance).select_from(each).join(near, true())
    return statement.join(found.entity, same).order_by(each.c.ordinal, near.c.distance)


def _listed(queries: Any) -> list[Any]:
    found = listed(queries, "for_each takes a list of queries; nearest takes one")
    if any(isinstance(inspect(query, raiseerr=False), InstanceState) for query in found):
        raise QueryError("for_each takes texts and vectors: for rows see knn_join, or similar_to")
    return found


class QueryTexts(TypeDecorator[Any]):
    """A list of queries as an array of vectors in pgvector's text format, which every driver can send."""

    impl = ARRAY(Text)
    cache_ok = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def process_bind_param(self, value: Any, dialect: Dialect) -> list[str]:
        """Encode the list, off the event loop where there is one."""
        try:
            return offload(self._encode, _listed(value))
        except EmbeddbError as error:
            raise unwrapped(error) from None

    def _encode(self, queries: list[Any]) -> list[str]:
        kind = parameter_type(self.settings)
        if isinstance(kind, QueryBits):
            return [as_bits(query, kind.length, what="a query") for query in queries]
        dim = serving_dim(self.settings)
        queries = [as_written(query, dim) if isinstance(query, str) else query for query in queries]
        texts = [query for query in queries if isinstance(query, str)]
        encoded = dict(zip(texts, embed_queries(serving_encoder(self.settings), texts), strict=True))
        return [to_text(encoded[query] if isinstance(query, str) else kind.coerce(query)) for query in queries]
