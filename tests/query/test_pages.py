"""``page``: nothing twice and nothing passed over, with equal distances and with writers between the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, exists, func, insert, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding
from embeddb.query.pages import page
from tests.query.items import ROWS, VECTORS, Half, Item, Pair, distances, plan, prefer_indexes


def pages(session: Session, embedding: AnyEmbedding, query: Any, size: int, count: int, **options: Any) -> list[Any]:
    rows: list[Any] = []
    for _ in range(count):
        rows += session.execute(page(embedding, query, size, after=rows[-1] if rows else None, **options)).all()
    return rows


def test_pages_are_one_list(session: Session) -> None:
    exact = np.argsort(distances("cosine", VECTORS, VECTORS[3]), kind="stable")
    rows = pages(session, Item.embedding, VECTORS[3], 25, 12)
    found = [row[0].id for row in rows]
    assert len(found) == len(set(found)) == 300
    assert (np.diff([row.distance for row in rows]) >= 0).all()
    assert len(set(found) & set(exact[:300].tolist())) >= 288
    for options in ({}, {"after": rows[99]}):
        statement = page(Item.embedding, VECTORS[3], 25, **options)
        assert "Index Scan using ix_item_embedding_hnsw" in plan(session, statement)
    by_key = page(Item.embedding, VECTORS[3], 25, after=(rows[99].distance, rows[99][0].id))
    assert [row[0].id for row in session.execute(by_key)] == found[100:125]


def test_to_the_last_row(session: Session) -> None:
    among = select(Item).where(Item.cat < 9, exists().where(Half.id == Item.id))
    rows = pages(session, Item.embedding, "row 1", 10, 7, among=among)
    assert len(rows) == 54
    assert len({row[0].id for row in rows}) == 54
    assert {row[0].cat for row in rows} == set(range(9))


@pytest.mark.parametrize("embedding", [Half.embedding, Pair.vector])
def test_other_metrics_and_keys(session: Session, embedding: AnyEmbedding) -> None:
    rows = pages(session, embedding, VECTORS[8], 7, 6)
    keys = [(row[0].left, row[0].right) if isinstance(row[0], Pair) else row[0].id for row in rows]
    assert len(keys) == len(set(keys)) == 42
    assert (np.diff([row.distance for row in rows]) >= 0).all()


@pytest.fixture
def ties(session: Session) -> Iterator[list[int]]:
    """Five hundred more rows, all of one vector; the numbers of the first hundred of them."""
    numbers = range(10 * ROWS, 10 * ROWS + 500)
    session.execute(insert(Item), [{"id": n, "cat": 1, "title": "tie", "embedding": VECTORS[0] + 4} for n in numbers])
    session.commit()
    prefer_indexes(session)
    yield list(numbers)
    session.execute(delete(Item).where(Item.id >= 10 * ROWS))
    session.commit()


@pytest.mark.parametrize("exact", [True, False])
def test_equal_distances(session: Session, ties: list[int], exact: bool) -> None:
    rows = pages(session, Item.embedding, VECTORS[0] + 4, 30, 16, exact=exact)
    found = [row[0].id for row in rows]
    assert len(found) == len(set(found)) == 480
    if exact:
        assert found == ties[:480]
    assert [(row.distance, row[0].id) for row in rows] == sorted((row.distance, row[0].id) for row in rows)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_writers_between_pages(items_engine: Engine, ties: list[int], data: st.DataObject) -> None:
    """Rows come and go at the very distance of the pages' ends: who stays is seen once."""
    gone: set[int] = set()
    fresh = 20 * ROWS
    with Session(items_engine) as reader, Session(items_engine) as writer:
        session_ties = set(reader.scalars(select(Item.id).where(Item.title == "tie")))
        seen: list[int] = []
        after: Any = None
        while True:
            rows = reader.execute(page(Item.embedding, VECTORS[0] + 4, 40, after=after, exact=True)).all()
            reader.rollback()
            seen += [row[0].id for row in rows if row[0].title == "tie" or row[0].title == "new"]
            if len(rows) < 40 or rows[-1].distance > 1e-5:
                break
            after = (rows[-1].distance, rows[-1][0].id)
            victims = data.draw(st.lists(st.sampled_from(sorted(session_ties - gone)), max_size=3))
            gone |= set(victims)
            writer.execute(delete(Item).where(Item.id.in_(victims)))
            count = data.draw(st.integers(0, 3))
            new = [{"id": fresh - n, "cat": 1, "title": "new", "embedding": VECTORS[0] + 4} for n in range(count)]
            if new:
                writer.execute(insert(Item), new)
            fresh -= count
            writer.commit()
        assert len(seen) == len(set(seen))
        assert session_ties - gone <= set(seen)
        writer.execute(delete(Item).where(Item.title == "new"))
        back = [{"id": n, "cat": 1, "title": "tie", "embedding": VECTORS[0] + 4} for n in sorted(gone)]
        if back:
            writer.execute(insert(Item), back)
        writer.commit()


def test_as_part_of_a_statement(session: Session) -> None:
    other = aliased(Item)
    rows = session.execute(page(other.embedding, "row 1", 5, among=select(other).where(other.cat == 2))).all()
    assert {row[0].cat for row in rows} == {2}
    core = session.connection().execute(page(Item.__table__.c.embedding, "row 1", 5)).all()
    next_core = page(Item.__table__.c.embedding, "row 1", 5, after=(core[-1].distance, core[-1].id))
    assert not {row.id for row in core} & {row.id for row in session.connection().execute(next_core)}
    inner = page(Item.embedding, "row 1", 5).subquery()
    assert session.scalar(select(func.count()).select_from(inner)) == 5


def test_where_and_join_count_as_among_does(session: Session) -> None:
    some = select(Item).where(Item.cat < 9)
    for exact in (True, False):
        first = session.execute(page(Item.embedding, "row 1", 10, among=some, exact=exact)).all()
        for after in (None, first[-1]):
            expected = session.execute(page(Item.embedding, "row 1", 10, after=after, among=some, exact=exact)).all()
            statement = page(Item.embedding, "row 1", 10, after=after, exact=exact)
            assert session.execute(statement.where(Item.cat < 9)).all() == expected
            joined = statement.join(Half, Half.id == Item.id).where(Half.cat < 9)
            assert session.execute(joined).all() == expected
            near = statement.where(Item.cat < 9, statement.selected_columns.distance < expected[4].distance)
            assert session.execute(near).all() == expected[:4]


@pytest.mark.parametrize("after", [7, (1.0,), (1.0, (1, 2)), (1.0, "x"), (1.0, None), ("x", 1), (float("nan"), 1)])
def test_what_is_refused(after: Any) -> None:
    with pytest.raises(QueryError, match="distance, key|no key of item"):
        page(Item.embedding, "x", after=after)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "at least 1, not 0"),
        ({"size": "5"}, "at least 1, not '5'"),
        ({"among": select(Half)}, "among is a select of .*Item"),
        ({"among": "x"}, "among is a select of .*Item.*, not 'x'"),
    ],
)
def test_sizes_and_rows_that_are_refused(options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        page(Item.embedding, "x", **options)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(items_engine: Engine, driver: str) -> None:
    engine = create_async_engine(items_engine.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(engine)() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        seen: list[int] = []
        after: Any = None
        for _ in range(8):
            rows = (await session.execute(page(Item.embedding, "row 1", 5, after=after))).all()
            seen += [row[0].id for row in rows]
            after = rows[-1]
        assert len(set(seen)) == 40
    await engine.dispose()
