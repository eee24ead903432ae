"""``for_each``: many searches in one statement, each as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, bindparam, event, exists, func, insert, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb import nearest
from embeddb.errors import NoEmbedding, QueryError, VectorError
from embeddb.query.for_each import for_each
from tests.query.items import HASHING, ROWS, VECTORS, Half, Item, Pair, distances, plan


def by_query(rows: Any) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for ordinal, row, _ in rows:
        found.setdefault(ordinal, []).append(row.id)
    return found


def test_each_as_if_it_were_alone(session: Session) -> None:
    queries = ["row 5", VECTORS[8], "row 70", VECTORS[9].tolist(), "row 5"]
    rows = session.execute(for_each(Item.embedding, queries, k=7)).all()
    assert [row.ordinal for row in rows] == [number for number in range(5) for _ in range(7)]
    for number, query in enumerate(queries):
        alone = session.execute(nearest(Item.embedding, query, distance=True).limit(7)).all()
        here = rows[7 * number : 7 * number + 7]
        assert [row[1].id for row in here] == [row[0].id for row in alone]
        assert [row.distance for row in here] == [row.distance for row in alone]


@pytest.mark.parametrize("embedding", [Item.embedding, Half.embedding, Pair.vector])
def test_recall_and_index(session: Session, embedding: Any) -> None:
    numbers = np.arange(0, 3000, 100)
    statement = for_each(embedding, list(VECTORS[numbers]), k=10)
    shown = plan(session, statement)
    assert f"Index Scan using ix_{embedding.property.columns[0].table.name}" in shown
    assert "set_config('hnsw.ef_search'" in shown
    rows = session.execute(statement).all()
    assert len(rows) == 300
    hits = 0
    for ordinal, at in enumerate(numbers):
        exact = distances(embedding.property.columns[0].type.settings.metric_name, VECTORS, VECTORS[at])
        hits += sum(
            row.distance <= np.sort(exact)[9] + 5e-3 * abs(exact).max() for row in rows if row.ordinal == ordinal
        )
    assert hits >= 0.95 * 300


def test_more_rows_than_the_index_gives_by_itself(session: Session) -> None:
    rows = session.execute(for_each(Item.embedding, list(VECTORS[:2]), k=300)).all()
    assert [row.ordinal for row in rows] == [0] * 300 + [1] * 300


@pytest.mark.parametrize("cats", [1, 5, 50, 250])
def test_among_is_filled_whatever_it_leaves(session: Session, cats: int) -> None:
    numbers = np.arange(0, 3000, 300)
    among = select(Item).where(Item.cat < cats)
    rows = session.execute(for_each(Item.embedding, list(VECTORS[numbers]), k=8, among=among)).all()
    k = min(8, 6 * cats)
    assert [row.ordinal for row in rows] == [n for n in range(10) for _ in range(k)]
    hits = 0
    for ordinal, at in enumerate(numbers):
        expected = [n for n in np.argsort(distances("cosine", VECTORS, VECTORS[at])) if n % 500 < cats][:k]
        hits += len({row[1].id for row in rows if row.ordinal == ordinal} & set(expected))
    assert hits >= 0.95 * 10 * k


def test_a_graph_that_ends_early(session: Session) -> None:
    copies = VECTORS[3] + 4
    numbers = range(ROWS, ROWS + 300)
    session.execute(insert(Item), [{"id": n, "cat": 1, "title": "copy", "embedding": copies} for n in numbers])
    assert len(session.execute(for_each(Item.embedding, [copies, VECTORS[0]], k=350)).all()) == 700
    session.rollback()


def test_among(session: Session) -> None:
    among = select(Item).where(Item.cat == 7, exists().where(Half.id == Item.id))
    rows = session.execute(for_each(Item.embedding, ["row 1", "row 2"], k=4, among=among)).all()
    assert len(rows) == 8
    assert {row[1].cat for row in rows} == {7}
    for number, query in enumerate(HASHING.encode_queries(["row 1", "row 2"])):
        expected = [n for n in np.argsort(distances("cosine", VECTORS, query)) if n % 500 == 7][:4]
        assert [row[1].id for row in rows if row.ordinal == number] == expected
    joined = select(Item).join(Half, Half.id == Item.id).where(Half.cat == 7)
    assert by_query(session.execute(for_each(Item.embedding, ["row 1", "row 2"], k=4, among=joined))) == by_query(rows)
    other = aliased(Item)
    aliased_rows = for_each(other.embedding, ["row 1", "row 2"], k=4, among=select(other).where(other.cat == 7))
    assert by_query(session.execute(aliased_rows)) == by_query(rows)
    whole = for_each(Item.embedding, ["row 1", "row 2"], k=4)
    assert by_query(session.execute(whole.where(Item.cat == 7))) == by_query(rows)
    having = exists().where(Half.id == Item.id, Half.cat == 7)
    assert by_query(session.execute(whole.where(having))) == by_query(rows)
    assert by_query(session.execute(whole.join(Half, Half.id == Item.id).where(Half.cat == 7))) == by_query(rows)


def test_as_part_of_a_statement(session: Session) -> None:
    statement = for_each(Item.embedding, ["row 1", "row 2"], k=6)
    thinned = session.execute(statement.where(statement.selected_columns.ordinal == 1)).all()
    assert by_query(thinned) == {1: by_query(session.execute(statement))[1]}
    inner = statement.subquery()
    counts = select(inner.c.ordinal, func.count()).group_by(inner.c.ordinal).order_by(inner.c.ordinal)
    assert session.execute(counts).all() == [(0, 6), (1, 6)]
    core = for_each(Item.__table__.c.embedding, ["row 1"], k=3)
    assert len(session.connection().execute(core).all()) == 3


def test_exact(session: Session) -> None:
    statement = for_each(Item.embedding, list(VECTORS[:3]), k=5, exact=True)
    assert "_hnsw" not in plan(session, statement)
    for ordinal, found in by_query(session.execute(statement)).items():
        assert found == np.argsort(distances("cosine", VECTORS, VECTORS[ordinal]), kind="stable")[:5].tolist()


def test_one_round_trip_and_one_compilation(session: Session, items_engine: Engine) -> None:
    sent: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if "item" in statement:  # a session also asks, now and then, whether the encoder was changed
            sent.append(statement)

    session.execute(for_each(Item.embedding, ["warm"], k=2)).all()
    cached = len(items_engine._compiled_cache or ())
    event.listen(items_engine, "before_cursor_execute", note)
    try:
        for count in range(1, 5):
            session.execute(for_each(Item.embedding, [f"row {n}" for n in range(count)], k=2)).all()
    finally:
        event.remove(items_engine, "before_cursor_execute", note)
    assert len(sent) == 4
    assert len(set(sent)) == 1
    assert len(items_engine._compiled_cache or ()) == cached


def test_a_list_given_later(session: Session) -> None:
    statement = for_each(Item.embedding, bindparam("qs"), k=2)
    assert len(session.execute(statement, {"qs": ["row 1", VECTORS[3]]}).all()) == 4
    assert session.execute(statement, {"qs": []}).all() == []


@pytest.mark.parametrize(
    ("queries", "error", "words"),
    [
        (["x", None], VectorError, "None"),
        (["x", [1.0]], VectorError, "1 dimensions"),
        (["x", "  "], NoEmbedding, "no embedding"),
    ],
)
def test_what_cannot_be_searched_with(session: Session, queries: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        session.execute(for_each(Item.embedding, queries, k=2))


def test_what_is_refused() -> None:
    with pytest.raises(QueryError, match="at least 1, not 0"):
        for_each(Item.embedding, ["x"], k=0)
    with pytest.raises(QueryError, match=r"at least 1, not 1\.5"):
        for_each(Item.embedding, ["x"], k=1.5)  # type: ignore[arg-type]  # as a careless caller has it
    for queries in ("x", 5):
        with pytest.raises(QueryError, match="a list of queries"):
            for_each(Item.embedding, queries)  # type: ignore[arg-type]  # likewise
    with pytest.raises(QueryError, match="for rows see knn_join"):
        for_each(Item.embedding, [Item(id=1)])
    with pytest.raises(QueryError, match="no limit"):
        for_each(Item.embedding, ["x"], among=select(Item).limit(3))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(items_engine: Engine, driver: str) -> None:
    engine = create_async_engine(items_engine.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(engine)() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        for _ in range(7):
            rows = (await session.execute(for_each(Item.embedding, ["row 1", "row 2"], k=3))).all()
            assert [row.ordinal for row in rows] == [0, 0, 0, 1, 1, 1]
    await engine.dispose()
