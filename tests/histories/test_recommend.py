"""What users are recommended, and why, held against NumPy; cold ones too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, bindparam, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb import because, nearest, recommend, similar_to
from embeddb.errors import DeclarationError, QueryError
from tests.histories.shop import COLD_PRODUCT, ORDERS, POOLED, PRODUCTS, TARGETS, Customer, Order, Product, fill
from tests.query.items import distances, plan, prefer_indexes

LEARNED = PRODUCTS - 10
POPULAR = Counter(product for _, product in ORDERS)


@pytest.fixture(scope="module")
def shop(module_engine: Engine) -> Engine:
    fill(module_engine)
    return module_engine


@pytest.fixture
def session(shop: Engine) -> Iterator[Session]:
    with Session(shop) as session:
        yield session


def seen(customer: int) -> set[int]:
    return {product for who, product in ORDERS if who == customer}


def expected(session: Session, customer: int, *, unseen: bool = True, shelf: int | None = None) -> list[int]:
    taste = session.scalars(select(Customer.taste).where(Customer.id == customer)).one()
    assert taste is not None
    order = np.argsort(distances("cosine", TARGETS[:LEARNED], taste))
    skipped = seen(customer) if unseen else set()
    return [int(n) for n in order if int(n) not in skipped and shelf in (None, n % 5)]


def test_the_nearest_items_but_those_seen(session: Session) -> None:
    for customer in range(4):
        statement = recommend(Customer.taste, customer, items=Product.target, exact=True)
        found = [product.id for product in session.scalars(statement.limit(20))]
        assert found == expected(session, customer)[:20]
        by_index = recommend(Customer.taste, customer, items=Product.target, recall=0.999).limit(20)
        near = {product.id for product in session.scalars(by_index)}
        assert len(near & set(found)) >= 19
        assert not near & seen(customer)
        everything = recommend(Customer.taste, customer, items=Product.target, exclude_seen=False, exact=True)
        assert [p.id for p in session.scalars(everything.limit(20))] == expected(session, customer, unseen=False)[:20]


def test_filters_joins_and_pages(session: Session) -> None:
    statement = recommend(Customer.taste, 1, items=Product.target, distance=True, score=True)
    wanted = expected(session, 1, shelf=3)
    rows = session.execute(statement.where(Product.shelf == 3).limit(10)).all()
    assert [row.Product.id for row in rows] == wanted[:10]
    assert rows[0].distance == pytest.approx(1 - rows[0].score)
    assert [r.distance for r in rows] == sorted(r.distance for r in rows)
    following = session.execute(statement.where(Product.shelf == 3).limit(5).offset(5)).all()
    assert [row.Product.id for row in following] == wanted[5:10]
    bought = session.execute(statement.join(Order, Order.product_id == Product.id).where(Order.customer_id == 2)).all()
    others = [n for n in expected(session, 1) if n in seen(2)]
    assert list(dict.fromkeys(row.Product.id for row in bought)) == others


def test_instances_keys_and_aliases_say_the_same(session: Session) -> None:
    wanted = [p.id for p in session.scalars(recommend(Customer.taste, 2, items=Product.target).limit(5))]
    session.commit()
    customer = session.get_one(Customer, 2)
    other = aliased(Product)
    for user, items in ((customer, Product.target), (2, other.target), (2, Product.__table__.c.target)):
        found = session.execute(recommend(Customer.taste, user, items=items).limit(5)).all()
        assert [getattr(row[0], "id", row[0]) for row in found] == wanted
    late = recommend(Customer.taste, bindparam("user"), items=Product.target).limit(5)
    assert [p.id for p in session.scalars(late, {"user": 2})] == wanted


def test_the_index_serves_it(session: Session) -> None:
    prefer_indexes(session)
    lines = plan(session, recommend(Customer.taste, 1, items=Product.target).limit(10))
    assert "Index Scan using ix_products_target_hnsw" in lines
    session.execute(text("SET LOCAL enable_seqscan = on"))
    ran = plan(session, recommend(Customer.taste, 1, items=Product.target).limit(10), "ANALYZE, COSTS OFF, TIMING OFF")
    counted = [line for line in ran.splitlines() if " popular" in line]
    assert counted
    assert all("never executed" in line for line in counted), ran


def test_one_statement_is_compiled_for_all_users(shop: Engine) -> None:
    with Session(shop) as session:
        session.scalars(recommend(Customer.taste, 0, items=Product.target).limit(3)).all()
        caches: list[str] = []

        def note(_conn: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
            if "embeddb.generation" not in statement:  # now and then a session asks whether an encoder was changed
                caches.append(context.cache_hit.name)

        event.listen(shop, "before_cursor_execute", note)
        for customer in range(1, 4):
            session.scalars(recommend(Customer.taste, customer, items=Product.target).limit(3 + customer)).all()
            session.execute(because(Customer.taste, customer, 5).limit(3)).all()
        event.remove(shop, "before_cursor_execute", note)
    assert caches[::2] == ["CACHE_HIT"] * 3
    assert caches[3::2] == ["CACHE_HIT"] * 2


@pytest.mark.parametrize("customer", [4, 5, 99])
def test_a_cold_user_gets_what_is_popular(session: Session, customer: int) -> None:
    by_count = sorted(range(LEARNED), key=lambda n: (-POPULAR[n], n))
    for exact in (False, True):
        statement = recommend(Customer.taste, customer, items=Product.target, distance=True, exact=exact)
        rows = session.execute(statement.limit(12)).all()
        assert [row.Product.id for row in rows] == by_count[:12]
        assert {row.distance for row in rows} == {None}
        shelved = session.execute(statement.where(Product.shelf == 3).limit(5).offset(2)).all()
        assert [row.Product.id for row in shelved] == [n for n in by_count if n % 5 == 3][2:7]
    told = recommend(Customer.taste, customer, items=Product.target, popularity=-Product.sold).limit(4)
    assert [product.id for product in session.scalars(told)] == [LEARNED - n for n in range(1, 5)]
    assert len(session.scalars(recommend(Customer.taste, customer, items=Product.target)).all()) == LEARNED


def test_a_warm_user_is_not_told_what_is_popular(session: Session) -> None:
    one, other = (
        session.scalars(recommend(Customer.taste, 3, items=Product.target, popularity=how).limit(9)).all()
        for how in (None, Product.sold)
    )
    assert one == other


def test_because_of_the_events_nearest_to_it(session: Session) -> None:
    own = sorted(seen(0))
    for item in (33, session.get_one(Product, 44)):
        number = item if isinstance(item, int) else item.id
        far = dict(zip(own, distances("cosine", POOLED[own], POOLED[number]), strict=True))
        rows = session.execute(because(Customer.taste, session.get_one(Customer, 0), item).limit(3)).all()
        assert [row.Order.product_id for row in rows] == sorted(own, key=far.__getitem__)[:3]
        assert rows[0].distance == pytest.approx(min(far.values()), abs=1e-6)
    shelved = because(Customer.taste, 0, 33).where(Product.shelf == 2)
    assert sorted({row.Order.product_id for row in session.execute(shelved)}) == [n for n in own if n % 5 == 2] != []
    assert not session.execute(because(Customer.taste, 0, COLD_PRODUCT)).all()
    assert not session.execute(because(Customer.taste, 4, 33)).all()


def test_similar_users(session: Session) -> None:
    rows = session.execute(select(Customer.id, Customer.taste)).all()
    tastes = {row.id: row.taste for row in rows if row.taste is not None}
    others = [customer for customer in tastes if customer != 2]
    far = dict(zip(others, distances("cosine", np.stack([tastes[n] for n in others]), tastes[2]), strict=True))
    wanted = sorted(others, key=far.__getitem__)
    assert [customer.id for customer in session.scalars(similar_to(Customer.taste, 2))] == wanted
    found = session.scalars(nearest(Customer.taste, session.get_one(Customer, 2)).limit(4)).all()
    assert [customer.id for customer in found] == [2, *wanted]


async def test_async_sessions(shop: Engine) -> None:
    engine = create_async_engine(shop.url)
    async with AsyncSession(engine) as session:
        customer = await session.get_one(Customer, 1)
        await session.commit()
        found = (await session.scalars(recommend(Customer.taste, customer, items=Product.target).limit(3))).all()
        assert [product.id for product in found] == await session.run_sync(lambda one: expected(one, 1)[:3])
    await engine.dispose()


def test_what_cannot_be_recommended_is_said() -> None:
    with pytest.raises(DeclarationError, match="no history"):
        recommend(Product.target, 1, items=Product.target)
    with pytest.raises(QueryError, match="events of customers.taste are of Product, not of Customer"):
        recommend(Customer.taste, 1, items=Customer.taste)
    with pytest.raises(QueryError, match="Product is no Customer"):
        recommend(Customer.taste, Product(id=3), items=Product.target)
    with pytest.raises(QueryError, match="this Customer has no id yet"):
        recommend(Customer.taste, Customer(), items=Product.target)
