"""``hybrid``: vector and full-text searches in one statement, their ranks fused.

Each leg gives its first rows with their ranks, and a row's score is the sum of ``weight / (k + rank)`` over the legs
that found it: reciprocal rank fusion (Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR). It needs no scores that compare, only orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    bindparam,
    func,
    select,
    union_all,
)
from sqlalchemy.orm import QueryableAttribute

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, Embedding, primary_key, resolve
from embeddb.query.fulltext import FullText, Match, as_text, matches, ranked_by_text
from embeddb.query.given import number, whole
from embeddb.query.pool import Filters, keys, keys_of, nearest_in, same


class Leg(Protocol):
    """One search of several: the rows that it finds, and what it weighs."""

    @property
    def entity(self) -> Any:
        """What it searches: a mapped class, an alias of one, or a table."""

    @property
    def weight(self) -> float:
        """How much its ranks count."""

    def rows(self, identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]) -> Select[Any]:
        """Keys (``key0`` …) and ``place``, smaller is better, of the first ``limit`` rows."""


@dataclass(frozen=True, slots=True)
class VectorLeg:
    """The rows nearest to a query: see ``vector_leg``."""

    embedding: Embedding
    query: Any
    weight: float
    exact: bool
    recall: float | None

    @property
    def entity(self) -> Any:
        """Of the embedding."""
        return self.embedding.entity

    def rows(self, identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]) -> Select[Any]:
        """By distance."""
        near = nearest_in(self.embedding, self.query, limit, exact=self.exact, recall=self.recall).subquery()
        return select(*keys_of(near, identity), near.c.distance.label("place"))


@dataclass(frozen=True, slots=True)
class TextLeg:
    """The rows whose words match: see ``text_leg``."""

    text: FullText
    query: Any
    weight: float
    match: Match

    @property
    def entity(self) -> Any:
        """Of the text's columns."""
        return self.text.entity

    def rows(self, identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]) -> Select[Any]:
        """By how well they match."""
        return ranked_by_text(self.text, self.query, self.match, identity, limit)


@dataclass(frozen=True, slots=True)
class RankLeg:
    """The rows in any order: see ``rank_leg``."""

    entity: Any
    order: ColumnElement[Any]
    criteria: tuple[ColumnElement[bool], ...]
    weight: float

    def rows(self, identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]) -> Select[Any]:
        """In the order given."""
        place = self.order.label("place")
        statement = select(*keys(identity), place).where(*self.criteria, Filters(identity))
        return statement.order_by(place).limit(limit)


def vector_leg(
    embedding: AnyEmbedding, query: Any, weight: float = 1.0, *, exact: bool = False, recall: float | None = None
) -> VectorLeg:
    """A leg of ``hybrid``: the rows nearest to ``query``. The arguments are those of ``nearest``."""
    return VectorLeg(resolve(embedding, "vector_leg"), query, float(weight), exact, recall)


def text_leg(
    text: FullText | QueryableAttribute[Any] | ColumnElement[Any],
    query: Any,
    weight: float = 1.0,
    *,
    config: str = "english",
    match: Match = "any",
) -> TextLeg:
    """A leg of ``hybrid``: the rows whose words match ``query``, a string or ``bindparam("words")``.

    ``text``: a tsvector column, a column of text, or ``fulltext(Article.title, Article.body)``, which says its own
    configuration.
    ``match``: "any" word, in the order of BM25 (a question in whole sentences finds something); or "websearch",
    Postgres's syntax with quotes, ``or`` and ``-``, where all words must match, in the order of ts_rank_cd.
    """
    return TextLeg(as_text(text, config), query, float(weight), matches(match))


def rank_leg(entity: Any, order: ColumnElement[Any], *criteria: ColumnElement[bool], weight: float = 1.0) -> RankLeg:
    """A leg of ``hybrid``: the rows of ``entity`` that meet ``criteria`` in any ``order``, the smallest first.

    For what another extension ranks: ``rank_leg(Article, Article.body.op("<@>")(words))`` with an index of BM25.
    """
    return RankLeg(entity, order, criteria, float(weight))


def hybrid(
    first: AnyEmbedding | Leg,
    /,
    *others: Any,
    text: FullText | QueryableAttribute[Any] | ColumnElement[Any] | None = None,
    weights: Sequence[float] | None = None,
    k: float = 60,
    candidates: int = 100,
    score: bool = False,
) -> Select[Any]:
    """Select the rows that several searches find, in the order of their fused ranks.

    Either ``hybrid(Article.embedding, "a question", text=fulltext(Article.title, Article.body))``, or any number of
    legs: ``hybrid(vector_leg(…), vector_leg(…), text_leg(…), rank_leg(…))``. ``weights``: one for each leg, instead of
    their own. ``k``: how little the first ranks stand out. ``candidates``: rows of each leg. ``score``: add the fused
    score, larger is better, as a column.

    The result is an ordinary Select of the entity. Its ``where`` and ``join`` count inside every leg, so that each
    finds ``candidates`` among the rows that are left.
    """
    legs = _legs(first, others, text)
    if weights is not None and len(weights) != len(legs):
        raise QueryError(f"hybrid has {len(legs)} legs and {len(weights)} weights: give one for each")
    shares = [number(weight, "hybrid: a weight") for weight in weights or [leg.weight for leg in legs]]
    if not all(0 <= share < float("inf") for share in shares):
        raise QueryError(f"hybrid: weights are 0 or more, not {shares}")
    candidates = whole(candidates, "hybrid: candidates are the rows of each leg")
    if number(k, "hybrid: k") < 0:
        raise QueryError(f"hybrid: k is 0 or more, not {k}")
    entity = legs[0].entity
    if any(leg.entity is not entity for leg in legs):
        names = ", ".join(str(leg.entity) for leg in legs)
        raise QueryError(f"hybrid: all legs search one entity, not {names}: alias it once, and build each leg on that")
    identity = _key(entity)
    smoothing = bindparam("k", float(k), Float(53), unique=True)
    limit = bindparam("candidates", candidates, Integer, unique=True)
    found = union_all(*_ranked(legs, shares, identity, limit, smoothing)).subquery()
    near = keys_of(found, identity)
    fused = select(*near, func.sum(found.c.share).label("score")).group_by(*near).subquery()
    statement = select(entity, *([fused.c.score] if score else [])).join(fused, same(fused, identity))
    return statement.order_by(fused.c.score.desc(), *identity)


def _ranked(
    legs: Sequence[Leg],
    shares: Sequence[float],
    identity: tuple[ColumnElement[Any], ...],
    limit: ColumnElement[int],
    smoothing: ColumnElement[float],
) -> Iterator[Select[Any]]:
    """Of each leg the keys, and the share of the score that their ranks give."""
    for leg, share in zip(legs, shares, strict=True):
        rows = leg.rows(identity, limit).subquery()
        near = keys_of(rows, identity)
        rank = func.row_number().over(order_by=[rows.c.place, *near])
        yield select(*near, (bindparam("weight", share, Float(53), unique=True) / (smoothing + rank)).label("share"))


def _legs(first: Any, others: tuple[Any, ...], text: Any) -> list[Leg]:
    kinds = (VectorLeg, TextLeg, RankLeg)
    if isinstance(first, kinds):
        if text is not None or not all(isinstance(other, kinds) for other in others):
            raise QueryError("hybrid takes an embedding, a query and text=…, or legs alone: vector_leg, text_leg, …")
        return [first, *others]
    if len(others) != 1 or text is None:
        raise QueryError("hybrid takes an embedding, one query and text=…, or legs: vector_leg, text_leg, …")
    if isinstance(others[0], BindParameter):
        raise QueryError("hybrid: one bindparam cannot be a text and a vector: give each leg its own, by vector_leg …")
    if not isinstance(others[0], str):
        raise QueryError(f"hybrid searches text and vectors by one string, not {others[0]!r}: for others give legs")
    return [vector_leg(first, others[0]), text_leg(text, others[0])]


def _key(entity: Any) -> tuple[ColumnElement[Any], ...]:
    return tuple(entity.primary_key) if isinstance(entity, FromClause) else primary_key(entity)
