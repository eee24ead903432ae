"""``knn_join``: every row with its nearest, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, exists, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from embeddb import Vector, embedding_column
from embeddb.encoders import Hashing
from embeddb.errors import QueryError
from embeddb.query.knn_join import knn_join
from tests.query.items import ROWS, VECTORS, Half, Item, Pair, distances, plan


def test_rows_of_another_table(session: Session) -> None:
    statement = knn_join(Item.embedding, Half.embedding, k=3).where(Item.cat == 8)
    shown = plan(session, statement)
    assert "Index Scan using ix_half_embedding_hnsw" in shown
    assert "set_config('hnsw.ef_search'" in shown
    rows = session.execute(statement).all()
    assert [row[0].id for row in rows] == [n for n in range(8, ROWS, 500) for _ in range(3)]
    for item, half, distance in rows:
        assert distance == pytest.approx(float(np.linalg.norm(VECTORS[item.id] - VECTORS[half.id])), rel=2e-3, abs=1e-3)
    assert all(row[0].id == row[1].id for row in rows[::3])  # the same vector in the other table


@pytest.mark.parametrize("exact", [False, True])
def test_a_table_with_itself(session: Session, exact: bool) -> None:
    other = aliased(Item)
    statement = knn_join(Item.embedding, other.embedding, k=4, exact=exact).where(Item.cat == 3)
    assert ("Index Scan using ix_item_embedding_hnsw" in plan(session, statement)) is not exact
    hits = 0
    rows = session.execute(statement).all()
    assert len(rows) == 24
    for row in rows:
        found = distances("cosine", VECTORS, VECTORS[row[0].id])
        found[row[0].id] = np.inf
        assert row[1].id != row[0].id
        hits += row[1].id in np.argsort(found)[:4]
    assert hits == 24 if exact else hits >= 23


def test_halves_with_wholes_and_keys_of_two_columns(session: Session) -> None:
    rows = session.execute(knn_join(Half.embedding, Pair.vector, k=2).where(Half.id == 5)).all()
    assert len(rows) == 2
    products = VECTORS @ VECTORS[5]
    assert -rows[0].distance == pytest.approx(float(products.max()), rel=5e-2)
    rows = session.execute(knn_join(Pair.vector, Item.embedding, k=2).where(Pair.left == 7)).all()
    assert [row[1].id for row in rows[::2]] == [70 + n for n in range(10)]


def test_filters_of_either_side(session: Session) -> None:
    other = aliased(Item)
    statement = knn_join(Item.embedding, other.embedding, k=2).where(Item.id < 4)
    among = knn_join(Item.embedding, other.embedding, k=2, among=select(other).where(other.cat < 9))
    expected = session.execute(among.where(Item.id < 4)).all()
    assert len(expected) == 8
    assert session.execute(statement.where(other.cat < 9)).all() == expected
    assert session.execute(statement.join(Half, Half.id == other.id).where(Half.cat < 9)).all() == expected
    # Of the left side, and of both, they choose no rows on the right.
    found = session.execute(statement).all()
    left = statement.join(Half, Half.id == Item.id).where(Half.cat < 2, ~exists().where(Pair.left == Item.id + ROWS))
    assert session.execute(left).all() == [row for row in found if row[0].id < 2]
    both = session.execute(statement.where(other.id > Item.id)).all()
    assert both == [row for row in found if row[1].id > row[0].id]


def test_among_and_a_limited_left(session: Session) -> None:
    few = aliased(Item, select(Item).order_by(Item.id).limit(5).subquery())
    rows = session.execute(knn_join(few.embedding, Half.embedding, k=2, among=select(Half).where(Half.cat < 50))).all()
    assert [row[0].id for row in rows] == [n for n in range(5) for _ in range(2)]
    assert all(row[1].cat < 50 for row in rows)
    core = knn_join(Item.__table__.c.embedding, Half.__table__.c.embedding, k=1).where(Item.__table__.c.id < 2)
    assert len(session.connection().execute(core).all()) == 2


def test_rows_without_a_vector_have_no_neighbours(session: Session) -> None:
    session.add(Item(id=ROWS, cat=1, title=None))
    session.flush()
    assert session.execute(knn_join(Item.embedding, Half.embedding, k=2).where(Item.id == ROWS)).all() == []


class Base(DeclarativeBase):
    pass


class Elsewhere(Base):
    __tablename__ = "elsewhere"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(dim=8))


@pytest.mark.parametrize(
    ("right", "options", "words"),
    [
        (Item.embedding, {}, "alias one of them"),
        (Elsewhere.embedding, {}, "vectors of two encoders"),
        (Half.embedding, {"k": 0}, "at least 1, not 0"),
        (Half.title, {}, "embedding_column"),
    ],
)
def test_what_is_refused(right: Any, options: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        knn_join(Item.embedding, right, **options)


async def test_async(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url.set(drivername="postgresql+asyncpg"))
    async with async_sessionmaker(engine)() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        rows = await session.execute(knn_join(Item.embedding, Half.embedding, k=1).where(Item.id < 4))
        assert [row[1].id for row in rows] == [0, 1, 2, 3]
    await engine.dispose()
