"""``duplicates``: pairs within a threshold, each once, against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb import duplicates
from embeddb.errors import QueryError
from embeddb.query.duplicates import groups
from tests.query.items import VECTORS, Half, Item, Pair, plan, unit

LIMIT = 0.06
COSINE = 1 - unit(VECTORS.astype(np.float64)) @ unit(VECTORS.astype(np.float64)).T
FIRST = 400  # rows that are compared with all


def brute(found: Any, limit: float) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in np.argwhere(found <= limit) if a < b and a < FIRST}


@pytest.mark.parametrize("exact", [False, True])
def test_pairs_against_brute_force(session: Session, exact: bool) -> None:
    other = aliased(Item)
    statement = duplicates(Item.embedding, other.embedding, distance=LIMIT, exact=exact).where(Item.id < FIRST)
    shown = plan(session, statement)
    assert ("Index Scan using ix_item_embedding_hnsw" in shown) is not exact
    assert ("Run Condition" in shown) is not exact
    rows = session.execute(statement).all()
    pairs = [(row[0].id, row[1].id) for row in rows]
    expected = brute(COSINE, LIMIT)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected
    assert len(expected) > 50
    assert [row.distance for row in rows] == pytest.approx([COSINE[pair] for pair in pairs], abs=1e-5)
    assert [one for one, _ in pairs] == sorted(one for one, _ in pairs)


def test_a_score_by_l2_and_keys_of_two_columns(session: Session) -> None:
    other = aliased(Half)
    l2 = np.linalg.norm(VECTORS[:FIRST, None].astype(np.float64) - VECTORS[None].astype(np.float64), axis=2)
    limit = float(np.quantile(l2[l2 > 0], 0.0005))
    statement = duplicates(Half.embedding, other.embedding, score=1 / (1 + limit)).where(Half.id < FIRST)
    pairs = {(row[0].id, row[1].id) for row in session.execute(statement)}
    close = brute(l2, limit * 0.999), brute(l2, limit * 1.001)  # in half precision
    assert close[0] <= pairs <= close[1]
    two = aliased(Pair)
    products = -(VECTORS[:FIRST].astype(np.float64) @ VECTORS.astype(np.float64).T)
    limit = float(np.quantile(products, 0.0005))
    statement = duplicates(Pair.vector, two.vector, distance=limit, exact=True).where(Pair.left < FIRST // 10)
    rows = session.execute(statement).all()
    numbers = {(row[0].left * 10 + int(row[0].right), row[1].left * 10 + int(row[1].right)) for row in rows}
    assert brute(products, limit + 0.01 * limit) <= numbers <= brute(products, limit - 0.01 * limit)


def test_a_run_is_resumed_and_streamed(session: Session, items_engine: Engine) -> None:
    other = aliased(Item)
    statement = duplicates(Item.embedding, other.embedding, distance=LIMIT).where(Item.id < FIRST)
    first = session.execute(statement.limit(20)).all()
    last = first[-1][0].id
    done = {(row[0].id, row[1].id) for row in first if row[0].id < last}
    rest = session.execute(statement.where(Item.id >= last).execution_options(yield_per=7))
    done |= {(row[0].id, row[1].id) for part in rest.partitions() for row in part}
    assert done == brute(COSINE, LIMIT)
    cached = len(items_engine._compiled_cache or ())
    session.execute(duplicates(Item.embedding, other.embedding, distance=0.01).where(Item.id < 9).limit(1)).all()
    session.execute(duplicates(Item.embedding, other.embedding, distance=0.02).where(Item.id < 5).limit(2)).all()
    assert len(items_engine._compiled_cache or ()) <= cached + 1


def test_groups() -> None:
    assert groups([(1, 2), (5, 6), (2, 3), (7, 8), (6, 8)]) == [[1, 2, 3], [5, 6, 7, 8]]
    assert groups([]) == []
    assert [len(group) for group in groups((n, n + 1) for n in range(5000))] == [5001]


@pytest.mark.parametrize(
    ("other", "options", "words"),
    [
        (Item.embedding, {"distance": 0.1}, "of an alias"),
        (Half.embedding, {"distance": 0.1}, "of an alias"),
        (aliased(Item).embedding, {}, "a distance or a score"),
        (aliased(Item).embedding, {"distance": 0.1, "score": 0.9}, "a distance or a score"),
        (aliased(Item).embedding, {"distance": float("nan")}, "the bound is a number, not nan"),
    ],
)
def test_what_is_refused(other: Any, options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        duplicates(Item.embedding, other, **options)


async def test_async(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url.set(drivername="postgresql+asyncpg"))
    async with async_sessionmaker(engine)() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        rows = await session.execute(
            duplicates(Item.embedding, aliased(Item).embedding, distance=LIMIT).where(Item.id < 40)
        )
        assert {(row[0].id, row[1].id) for row in rows} == {(a, b) for a, b in brute(COSINE, LIMIT) if a < 40}
    await engine.dispose()


def test_the_planner_takes_the_index_by_itself(items_engine: Engine) -> None:
    """It expects few rows of each search, or it would read the whole table for every one of them."""
    with Session(items_engine) as session:
        statement = duplicates(Item.embedding, aliased(Item).embedding, distance=LIMIT).where(Item.id < FIRST)
        assert "Index Scan using ix_item_embedding_hnsw" in plan(session, statement)
