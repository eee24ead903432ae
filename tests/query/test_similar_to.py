"""``similar_to``: sums of stored vectors, in the database, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb.errors import QueryError
from embeddb.query.similar_to import similar_to
from tests.query.items import ROWS, VECTORS, Half, Item, Pair, distances, plan, unit


def nearest_by_numpy(metric: str, query: Any, without: list[int], k: int) -> list[int]:
    found = distances(metric, VECTORS, query)
    found[without] = np.inf
    return [int(n) for n in np.argsort(found, kind="stable")[:k]]


def test_a_row_itself_is_left_out(session: Session) -> None:
    row = session.get_one(Item, 42)
    expected = nearest_by_numpy("cosine", VECTORS[42], [42], 10)
    for statement in (similar_to(row), similar_to(Item.embedding, row), similar_to(Item.embedding, 42)):
        assert [found.id for found in session.scalars(statement.limit(10))] == expected
    assert session.scalars(similar_to(row, exclude=False).limit(1)).one() is row


def test_a_weighted_sum_by_cosine(session: Session) -> None:
    rows = {session.get_one(Item, n): weight for n, weight in ((5, 1.0), (300, 0.5))}
    query = unit(VECTORS[5]) + 0.5 * unit(VECTORS[300]) - unit(VECTORS[77])
    expected = nearest_by_numpy("cosine", query, [5, 300, 77], 10)
    statement = similar_to(rows, minus=[77], distance=True, score=True).limit(10)
    found = session.execute(statement).all()
    assert [row[0].id for row in found] == expected
    assert np.allclose([row.distance for row in found], distances("cosine", VECTORS, query)[expected], atol=1e-5)
    assert np.allclose([row.score for row in found], [1 - row.distance for row in found])


def test_a_mean_by_l2_through_a_half_precision_index(session: Session) -> None:
    query = (VECTORS[1] + 2 * VECTORS[2] - 0.5 * VECTORS[3]) / 2.5
    statement = similar_to(Half.embedding, {1: 1, 2: 2.0}, minus={3: 0.5}, distance=True)
    found = session.execute(statement.limit(10)).all()
    exact = distances("l2", VECTORS, query)
    assert np.allclose([row.distance for row in found], exact[[row[0].id for row in found]], rtol=2e-3)
    expected = nearest_by_numpy("l2", query, [1, 2, 3], 10)
    assert len({row[0].id for row in found} & set(expected)) >= 9  # two may change places in half precision
    assert "Index Scan using ix_half_embedding_hnsw" in plan(session, statement.limit(10))


def test_keys_of_two_columns_and_the_inner_product(session: Session) -> None:
    rows = [(4, "2"), (9, "0")]
    statement = similar_to(Pair.vector, rows, score=True).limit(10)
    found = session.execute(statement).all()
    query = VECTORS[42] + VECTORS[90]
    expected = nearest_by_numpy("inner_product", query, [42, 90], 10)
    assert len({row[0].left * 10 + int(row[0].right) for row in found} & set(expected)) >= 9
    assert np.allclose(found[0].score, VECTORS[expected[0]] @ query, rtol=2e-3)
    assert "Index Scan using ix_pair_v_hnsw" in plan(session, statement)
    one = session.scalars(similar_to(Pair.vector, (4, "2"), exclude=False).limit(1)).one()
    assert one in session.scalars(similar_to(Pair.vector, one, exclude=False).limit(1)).all()


def test_index_filters_and_statement_cache(session: Session, items_engine: Engine) -> None:
    statement = similar_to(Item.embedding, [1, 2]).where(Item.cat < 10).limit(5)
    assert "Index Scan using ix_item_embedding_hnsw" in plan(session, statement)
    assert "set_config('hnsw.ef_search'" in plan(session, statement)
    expected = [
        n for n in nearest_by_numpy("cosine", unit(VECTORS[1]) + unit(VECTORS[2]), [1, 2], ROWS) if n % 500 < 10
    ]
    assert [row.id for row in session.scalars(statement)] == expected[:5]
    cached = len(items_engine._compiled_cache or ())
    for count in range(1, 6):  # as many rows as one likes: the same statement
        session.scalars(similar_to(Item.embedding, range(count), minus=[9]).where(Item.cat < 10).limit(5)).all()
    assert len(items_engine._compiled_cache or ()) <= cached + 1
    other = aliased(Item)
    by_alias = similar_to(other.embedding, [1, 2]).where(other.cat < 10).limit(5)
    assert [row.id for row in session.scalars(by_alias)] == expected[:5]
    core = similar_to(Item.__table__.c.embedding, [1, 2]).where(Item.cat < 10).limit(5)
    assert [row.id for row in session.connection().execute(core)] == expected[:5]


def test_exact(session: Session) -> None:
    statement = similar_to(Item.embedding, 8, exact=True).limit(300)
    shown = plan(session, statement)
    assert "_hnsw" not in shown
    assert "set_config" not in shown
    assert [row.id for row in session.scalars(statement)] == nearest_by_numpy("cosine", VECTORS[8], [8], 300)


def test_rows_that_have_no_vector_or_cancel_out_find_nothing(session: Session) -> None:
    session.add(Item(id=ROWS + 1, cat=1, title=None))
    session.flush()
    for statement in (
        similar_to(Item.embedding, ROWS + 1),
        similar_to(Item.embedding, ROWS + 99),
        similar_to(Item.embedding, [1, 2], minus=[2, 1]),
    ):
        assert session.scalars(statement.limit(5)).all() == []
    assert len(session.scalars(similar_to(Item.embedding, [ROWS + 1, 3]).limit(5)).all()) == 5


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((Item.embedding, []), {}, "at least one row"),
        ((Item.embedding, [1]), {"minus": {2: -1.0}}, "weight of 2 is -1.0"),
        ((Item.embedding, {1: float("nan")}), {}, "weight of 1 is a number, not nan"),
        ((Item.embedding, (1, 2)), {}, r"\(1, 2\) is no key of item, which is \(id Integer\(\)\)"),
        ((Item.embedding, ["abc"]), {}, "'abc' is no key of item"),
        ((Item.embedding, {1: "2"}), {}, "weight of 1 is a number, not '2'"),
        ((Pair.vector, 3), {}, r"3 is no key of pair, which is \(left Integer\(\), right String\(\)\)"),
        ((7,), {}, r"similar_to\(Article.embedding, 7\)"),
        ((Item(title="new"),), {}, "new: flush it first"),
        ((Half.embedding, [1]), {"minus": [2]}, "add up to zero.*l2"),
        ((Item.title, [1]), {}, "similar_to takes a column made by embedding_column.*not Item.title$"),
        ((Item, [1]), {}, "not the class Item, which has Item.embedding"),
        ((7, [1]), {}, "not 7$"),
    ],
)
def test_what_is_refused(arguments: Any, options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        similar_to(*arguments, **options)


@pytest.mark.parametrize("sequence", [np.array, iter], ids=["array", "iterator"])
def test_keys_of_any_sequence(session: Session, sequence: Any) -> None:
    found = session.scalars(similar_to(Item.embedding, sequence([1, 2]), exact=True).limit(4)).all()
    assert found == session.scalars(similar_to(Item.embedding, [1, 2], exact=True).limit(4)).all()


def test_an_instance_of_another_class(session: Session) -> None:
    with pytest.raises(QueryError, match="Half is no row of item"):
        similar_to(Item.embedding, session.get_one(Half, 1))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(items_engine: Engine, driver: str) -> None:
    engine = create_async_engine(items_engine.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(engine)() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        expected = nearest_by_numpy("cosine", unit(VECTORS[5]) + 0.5 * unit(VECTORS[6]), [5, 6], 10)
        for _ in range(7):  # the driver prepares a statement that comes again
            rows = await session.scalars(similar_to(Item.embedding, {5: 1.0, 6: 0.5}).limit(10))
            assert [row.id for row in rows] == expected
        pairs = await session.scalars(similar_to(Pair.vector, (4, "2")).limit(3))
        assert len(pairs.all()) == 3
    await engine.dispose()
