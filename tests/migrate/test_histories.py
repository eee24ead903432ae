"""Histories travel through migrations: their triggers and functions, there and back, and as a script."""

from __future__ import annotations

import datetime
from pathlib import Path

from sqlalchemy import DateTime, Engine, ForeignKey, MetaData, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import embeddb
from embeddb import Vector, history_column, recent_column, vector_column
from embeddb.catalog.install import install
from embeddb.local import LocalPostgres
from tests.conftest import fresh_database
from tests.migrate.project import Project, differences, psql, schema_of

ROWS = """
INSERT INTO customers (id) VALUES (1);
INSERT INTO "the shop".products (name, pooled) VALUES ('tent', array_fill(0.5, ARRAY[4])::vector);
INSERT INTO orders (customer_id, product_name, at) VALUES (1, 'tent', now());
"""
KEPT: list[type] = []


def shop(half_life: float | None = 60.0, *, recent: bool = True, declared: bool = True) -> type[DeclarativeBase]:
    class Base(DeclarativeBase):
        pass

    class Product(Base):
        __tablename__ = "products"
        __table_args__ = {"schema": "the shop"}
        name: Mapped[str] = mapped_column(primary_key=True)
        pooled: Mapped[Vector | None] = vector_column(4, index=None)

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
        product_name: Mapped[str] = mapped_column(ForeignKey(Product.name))
        at: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True))
        product: Mapped[Product] = relationship()

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        orders: Mapped[list[Order]] = relationship()
        if declared:
            taste: Mapped[Vector | None] = history_column(
                "orders", item="product", vector="pooled", at="at", dim=4, half_life=half_life
            )
        if declared and recent:
            last: Mapped[str | None] = recent_column("orders", item="product", at="at", length=5)

    KEPT.extend([Product, Order, Customer])
    return Base


def make_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE SCHEMA "the shop"')


def test_histories_travel_there_and_back(engine: Engine, tmp_path: Path, server: LocalPostgres) -> None:
    make_schema(engine)
    project = Project(tmp_path, engine, shop(declared=False).metadata, include_schemas=True)
    project.revise("before")
    project.upgrade()
    before = schema_of(server, engine.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(ROWS)
    dumps = []
    for number, base in enumerate((shop(), shop(None, recent=False), shop(declared=False))):
        project.metadata = base.metadata
        written = project.revise(f"step {number}")
        assert ("op.create_history(" in written, "op.drop_history(" in written) == (number < 3, True)
        project.upgrade()
        project.check()
        dumps.append(schema_of(server, engine.url))
        if number == 0:
            with engine.connect() as connection:  # of the events that were there, by the database alone
                assert connection.scalar(text("SELECT count(taste) + count(last) FROM customers")) == 2
                assert connection.scalars(text("SELECT kept_up FROM embeddb.histories")).all() == [True, True]
    for dump in (dumps[1], dumps[0], before):
        project.downgrade()
        assert schema_of(server, engine.url) == dump
    project.upgrade()
    assert schema_of(server, engine.url) == dumps[2]
    with fresh_database(server) as url:
        other = create_engine(url)
        make_schema(other)
        other.dispose()
        psql(server, url, project.script("head"))
        assert schema_of(server, url) == dumps[2]


def test_registered_histories_are_as_declared(engine18: Engine) -> None:
    make_schema(engine18)
    base = shop()
    with engine18.begin() as connection:
        install(connection)
        base.metadata.create_all(connection)
        embeddb.register_histories(connection, base)
    assert differences(engine18, base.metadata, include_schemas=True) == []
    assert len(differences(engine18, shop(30).metadata, include_schemas=True)) == 2
    [drop] = differences(engine18, MetaData())[:1]
    assert drop == ("drop_history", "customers.last")
