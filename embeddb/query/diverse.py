"""``diverse``: results that are near to the query and unlike each other.

Maximal marginal relevance (Carbonell and Goldstein 1998, "The use of MMR, diversity-based reranking for reordering
documents and producing summaries", SIGIR): of the candidates the next is always the one with the largest
``relevance · score to the query - (1 - relevance) · largest score to what is chosen already``. It is a recursion, so a
recursive CTE: its one row holds the places of what is chosen, and of each candidate its largest score to those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Float,
    Integer,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding, Embedding, resolve
from embeddb.query.given import number, whole
from embeddb.query.pool import keys_of, nearest_in, same

_ONE = literal_column("1", Integer)


def diverse(
    embedding: AnyEmbedding,
    query: Any,
    k: int = 10,
    *,
    relevance: float = 0.5,
    candidates: int = 50,
    exact: bool = False,
    recall: float | None = None,
) -> Select[Any]:
    """Select ``k`` of the ``candidates`` nearest to ``query``, in the order of their maximal marginal relevance.

    ``relevance``: from 1, where only the query counts, to 0, where after the first only the difference does.
    ``embedding``, ``query``, ``exact``, ``recall``: as for ``nearest``. Scores are the declared metric's.

    The result is an ordinary Select of the entity; its ``where`` and ``join`` count in choosing the candidates. It
    computes about ``k · candidates`` distances.
    """
    found = resolve(embedding, "diverse")
    if not 0 <= number(relevance, "diverse: relevance") <= 1:
        raise QueryError(f"diverse: relevance is from 0 to 1, not {relevance!r}")
    if whole(k, "diverse: k is the number of rows") > whole(candidates, "diverse: candidates are rows to choose from"):
        raise QueryError(f"diverse: k is at most the candidates, {candidates}, not {k}")
    limit = bindparam("candidates", candidates, Integer, unique=True)
    near = nearest_in(found, query, limit, exact=exact, recall=recall).subquery()
    source = found.another()
    identity = keys_of(near, found.key)
    pool = (
        select(
            *identity,
            cast(func.row_number().over(order_by=[near.c.distance, *identity]), Integer).label("place"),
            found.metric.score(near.c.distance).label("score"),
            source.column.label("vector"),
        )
        .join_from(near, source.entity, same(near, source.key).condition)
        .cte()
        .prefix_with("MATERIALIZED")
    )
    chosen = _chosen(found, pool, k, relevance)
    # The last row of the recursion holds them all, in their order.
    last = select(chosen.c.places).order_by(chosen.c.step.desc()).limit(1).subquery()
    places = func.unnest(last.c.places).table_valued("place", with_ordinality="step").render_derived()
    picked = (
        select(*keys_of(pool, found.key), places.c.step)
        .select_from(last)
        .join(places, true())
        .join(pool, pool.c.place == places.c.place)
        .subquery()
    )
    return select(found.entity).join(picked, same(picked, found.key)).order_by(picked.c.step)


def _chosen(embedding: Embedding, pool: CTE, k: int, relevance: float) -> CTE:
    """One row a step: ``step``, the ``places`` chosen so far, and each candidate's ``closest`` score to those."""
    weight = bindparam("relevance", float(relevance), Float(53), unique=True)
    first = (
        select(
            _ONE.label("step"),
            array([_ONE]).label("places"),
            _closest(embedding, pool, _ONE, None).label("closest"),
        )
        .where(select(pool.c.place).exists())
        .cte(recursive=True)
    )
    worth = weight * pool.c.score - (_ONE - weight) * first.c.closest[pool.c.place]
    best = (
        select(pool.c.place)
        .where(pool.c.place != func.all(first.c.places))
        .order_by(worth.desc(), pool.c.place)
        .limit(1)
        .correlate(first)
        .lateral()
    )
    following = (
        select(
            first.c.step + _ONE,
            func.array_append(first.c.places, best.c.place, type_=ARRAY(Integer)),
            _closest(embedding, pool, best.c.place, first.c.closest),
        )
        .select_from(first)
        .join(best, true())
        .where(first.c.step < bindparam("k", k, Integer, unique=True))
    )
    return first.union_all(following)


def _closest(
    embedding: Embedding, pool: CTE, place: ColumnElement[int], before: ColumnElement[Any] | None
) -> ColumnElement[Any]:
    """Of each candidate in turn the largest score to what is chosen, where ``place`` is what was chosen last."""
    each, last = pool.alias(), pool.alias()
    measured: ColumnElement[Any] = cast(each.c.vector.op(embedding.metric.operator)(last.c.vector), Float(53))
    score: ColumnElement[Any] = embedding.metric.score(measured)
    if before is not None:
        score = func.greatest(score, before[each.c.place])
    scores = func.array_agg(aggregate_order_by(score, each.c.place), type_=ARRAY(Float(53)))
    return select(scores).select_from(each.join(last, last.c.place == place)).scalar_subquery()
