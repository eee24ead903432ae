"""A shop with customers who drift through topics: what recommendations are held against NumPy on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import Engine, ForeignKey, Index, insert, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from embeddb import HNSW, Vector
from embeddb.catalog.install import install
from embeddb.orm.history import history_column, register_histories
from embeddb.orm.vector_column import vector_column

DIM = 8
PRODUCTS = 600
START = datetime(2026, 5, 4, tzinfo=UTC)
WEEK = timedelta(days=7)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: TIMESTAMP(timezone=True)}


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    orders: Mapped[list[Order]] = relationship(viewonly=True)
    taste: Mapped[Vector | None] = history_column(
        "orders", item="product", vector="pooled", at="at", half_life=WEEK, dim=DIM, index=HNSW()
    )


class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf: Mapped[int]
    sold: Mapped[int]
    pooled: Mapped[Vector | None] = vector_column(DIM, index=None)
    target: Mapped[Vector | None] = vector_column(DIM)


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"))
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    at: Mapped[datetime]
    product: Mapped[Product] = relationship()


Index("orders_customer_at", Order.customer_id, Order.at)

rng = np.random.default_rng(3)
POOLED = rng.standard_normal((PRODUCTS, DIM)).astype(np.float32)
TARGETS = (POOLED + 0.3 * rng.standard_normal((PRODUCTS, DIM))).astype(np.float32)
#: (customer, product) in order of time. Customer 4 has nothing, and 5 only what has no vector.
ORDERS = [(customer, int(product)) for customer in range(4) for product in rng.integers(PRODUCTS - 10, size=12)]
ORDERS += [(customer, product) for customer, product in ((0, 7), (1, 7), (2, 7), (0, 8), (1, 8), (0, 9))]
COLD_PRODUCT = PRODUCTS - 1


def fill(engine: Engine) -> None:
    """Create the shop; the last ten products have no vector yet."""
    with engine.begin() as connection:
        install(connection)
        Base.metadata.create_all(connection)
        register_histories(connection, Base)
        connection.execute(insert(Customer), [{"id": number} for number in range(6)])
        products = [
            {"id": n, "shelf": n % 5, "sold": 1000 - n, "pooled": POOLED[n], "target": TARGETS[n]}
            for n in range(PRODUCTS - 10)
        ]
        connection.execute(insert(Product), products)
        late = [{"id": n, "shelf": n % 5, "sold": 0} for n in range(PRODUCTS - 10, PRODUCTS)]
        connection.execute(insert(Product), late)
        orders = [
            {"customer_id": customer, "product_id": product, "at": START + timedelta(hours=hour)}
            for hour, (customer, product) in enumerate([*ORDERS, (5, COLD_PRODUCT)])
        ]
        connection.execute(insert(Order), orders)
        connection.execute(text("ANALYZE"))
