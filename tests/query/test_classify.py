"""``classify``: the votes of the neighbours, against NumPy."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb import classify
from embeddb.errors import QueryError
from tests.query.items import VECTORS, Half, Item, Pair, distances, plan


def votes(query: Any, k: int, weights: str, among: Any = None) -> list[tuple[int, float]]:
    """Label (the number of the hundred modulo 7) and votes, the most first."""
    found = distances("cosine", VECTORS, query)
    if among is not None:
        found[~among] = np.inf
    counted: dict[int, float] = defaultdict(float)
    for n in np.argsort(found, kind="stable")[:k]:
        counted[int(n) % 500 % 7] += 1 if weights == "uniform" else 1 / max(found[n], 1e-6)
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_votes_and_shares(session: Session, weights: Any) -> None:
    query = VECTORS[12] + 0.3
    rows = session.execute(classify(Item.embedding, query, label=Item.cat % 7, weights=weights, k=21)).all()
    expected = votes(query, 21, weights)
    assert [row.label for row in rows] == [label for label, _ in expected]
    assert [row.votes for row in rows] == pytest.approx([count for _, count in expected], rel=1e-4)
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_filters_choose_the_neighbours(session: Session) -> None:
    query = VECTORS[12] + 0.3
    among = np.arange(len(VECTORS)) % 500 < 20
    statement = classify(Item.embedding, query, label=Item.cat % 7, k=15, weights="uniform").where(Item.cat < 20)
    rows = session.execute(statement).all()
    assert [(row.label, row.votes) for row in rows] == votes(query, 15, "uniform", among)
    joined = classify(Item.embedding, query, label=Half.cat % 7, k=15, weights="uniform")
    joined = joined.join(Half, Half.id == Item.id).where(Half.cat < 20)
    assert [(row.label, row.votes) for row in session.execute(joined)] == votes(query, 15, "uniform", among)
    assert session.scalars(statement.limit(1)).one() == rows[0].label


def test_index_alias_copies_and_missing_labels(session: Session) -> None:
    other = aliased(Item)
    statement = classify(other.embedding, VECTORS[40], label=other.title, k=5)
    assert "Index Scan using ix_item_embedding_hnsw" in plan(session, statement)
    first = session.execute(statement).first()
    assert first is not None
    assert first.label == "row 40"  # the very same vector outvotes all others
    assert first.share > 0.99
    session.get_one(Item, 40).title = None
    session.get_one(Item, 40).embedding = 2 * VECTORS[40]
    session.flush()
    assert len(session.execute(statement).all()) == 4


def test_many_texts(session: Session) -> None:
    queries = [VECTORS[n] + 0.3 for n in (3, 99, 640)]
    few = select(Item).where(Item.cat < 50)
    rows = session.execute(classify(Item.embedding, queries, label=Item.cat % 7, k=9, among=few)).all()
    among = np.arange(len(VECTORS)) % 500 < 50
    for ordinal, query in enumerate(queries):
        mine = [row for row in rows if row.ordinal == ordinal]
        expected = votes(query, 9, "distance", among)
        assert [row.label for row in mine] == [label for label, _ in expected]
        assert [row.votes for row in mine] == pytest.approx([count for _, count in expected], rel=1e-4)
        assert sum(row.share for row in mine) == pytest.approx(1)


def test_one_statement_serves_every_text(session: Session, items_engine: Engine) -> None:
    session.execute(classify(Item.embedding, "a text", label=Item.cat)).all()
    cached = len(items_engine._compiled_cache or ())
    for n in range(2, 5):
        session.execute(classify(Item.embedding, f"text {n}", label=Item.cat, k=n)).all()
    assert len(items_engine._compiled_cache or ()) == cached


@pytest.mark.parametrize(
    ("embedding", "options", "words"),
    [
        (Item.embedding, {"weights": "rank"}, "'distance' or 'uniform'"),
        (Pair.vector, {}, "no distance to divide by"),
        (Item.embedding, {"k": 0}, "at least 1, not 0"),
        (Item.embedding, {"among": select(Item)}, "filter the result with where"),
        (Item.title, {}, "embedding_column"),
    ],
)
def test_what_is_refused(embedding: Any, options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        classify(embedding, "a text", label=Item.cat, **options)


async def test_async(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url.set(drivername="postgresql+asyncpg"))
    async with async_sessionmaker(engine)() as session:
        rows = await session.execute(classify(Item.embedding, ["one", "two"], label=Item.cat, k=3))
        assert {row.ordinal for row in rows} == {0, 1}
    await engine.dispose()


def test_a_matrix_is_several_queries_and_a_name_no_label(session: Session) -> None:
    queries = VECTORS[[3, 99]]
    rows = session.execute(classify(Item.embedding, queries, label=Item.cat, k=3)).all()
    assert rows == session.execute(classify(Item.embedding, list(queries), label=Item.cat, k=3)).all()
    with pytest.raises(QueryError, match="label is a column, like Article.topic, not 'cat'"):
        classify(Item.embedding, "a text", label="cat")  # type: ignore[arg-type]  # as a careless caller has it
