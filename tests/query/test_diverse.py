"""``diverse``: maximal marginal relevance in SQL, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb import diverse
from embeddb.errors import QueryError
from embeddb.metrics import METRICS
from tests.query.items import ROWS, VECTORS, Half, Item, Pair, distances, plan

QUERY = VECTORS[11] + 0.2


def reference(metric: str, k: int, relevance: float, candidates: int, among: Any = None) -> list[int]:
    score = METRICS[metric].score
    near = distances(metric, VECTORS, QUERY)
    if among is not None:
        near[~among] = np.inf
    pool = [int(n) for n in np.argsort(near, kind="stable")[:candidates] if np.isfinite(near[n])]
    relevances = score(near)
    chosen = pool[:1]
    while len(chosen) < min(k, len(pool)):
        left = [n for n in pool if n not in chosen]
        closest = [max(score(distances(metric, VECTORS[chosen], VECTORS[n]))) for n in left]
        worth = [relevance * relevances[n] - (1 - relevance) * c for n, c in zip(left, closest, strict=True)]
        chosen.append(left[int(np.argmax(worth))])
    return chosen


@pytest.mark.parametrize("relevance", [0, 0.3, 0.7, 1])
def test_cosine(session: Session, relevance: float) -> None:
    found = session.scalars(diverse(Item.embedding, QUERY, 12, relevance=relevance, candidates=40, exact=True)).all()
    assert [row.id for row in found] == reference("cosine", 12, relevance, 40)


@pytest.mark.parametrize(("embedding", "metric"), [(Half.embedding, "l2"), (Pair.vector, "inner_product")])
def test_other_metrics(session: Session, embedding: Any, metric: str) -> None:
    found = session.scalars(diverse(embedding, QUERY, 8, relevance=0.6, candidates=30)).all()
    ids = {row.id if isinstance(row, Half) else row.left * 10 + int(row.right) for row in found}
    # In half precision near ties may fall the other way.
    assert len(ids & set(reference(metric, 8, 0.6, 30))) >= 6


def test_filters_choose_the_candidates(session: Session) -> None:
    among = np.arange(ROWS) % 500 < 5
    for among_size, k in ((20, 6), (60, 40)):
        statement = diverse(Item.embedding, QUERY, k, candidates=among_size).where(Item.cat < 5)
        assert [row.id for row in session.scalars(statement)] == reference("cosine", k, 0.5, among_size, among)
    joined = diverse(Item.embedding, QUERY, 6, candidates=20).join(Half, Half.id == Item.id).where(Half.cat < 5)
    assert [row.id for row in session.scalars(joined)] == reference("cosine", 6, 0.5, 20, among)
    assert session.scalars(diverse(Item.embedding, QUERY, 6).where(Item.cat < 0)).all() == []
    counted = select(func.count()).select_from(statement.subquery())
    assert session.scalar(counted) == 30


def test_index_alias_limit_and_statement_cache(session: Session, items_engine: Engine) -> None:
    other = aliased(Item)
    statement = diverse(other.embedding, "a text", 5)
    assert "Index Scan using ix_item_embedding_hnsw" in plan(session, statement)
    found = [row.id for row in session.scalars(statement)]
    assert [row.id for row in session.scalars(statement.limit(2).offset(1))] == found[1:3]
    cached = []
    for n in range(2, 5):
        session.scalars(diverse(other.embedding, f"text {n}", n, relevance=1 / n, candidates=9 * n)).all()
        cached.append(len(items_engine._compiled_cache or ()))
    assert cached == cached[:1] * 3
    core = diverse(Item.__table__.c.embedding, "a text", 5)
    assert [row.id for row in session.connection().execute(core)] == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"relevance": 1.1}, "from 0 to 1"),
        ({"relevance": "a"}, "relevance is a number, not 'a'"),
        ({"k": 0}, "at least 1"),
        ({"k": 2.5}, r"at least 1, not 2\.5"),
        ({"k": 60}, "at most the candidates, 50, not 60"),
    ],
)
def test_what_is_refused(options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        diverse(Item.embedding, "a text", **options)


async def test_async(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url.set(drivername="postgresql+asyncpg"))
    async with async_sessionmaker(engine)() as session:
        assert len((await session.scalars(diverse(Item.embedding, "a text", 4))).all()) == 4
    await engine.dispose()
