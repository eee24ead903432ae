"""What might this customer want next, who is like them, and why is it shown?

A customer is the sum of what they bought, the past fading; triggers keep it up, in the transaction of each order. The
vectors of products are learnt from which of them are bought together: needs ``pip install 'embeddb[history]'``.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta

from common import Figure, database, engine_of, run
from sqlalchemy import DateTime, ForeignKey, Index, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import embeddb
from embeddb import Vector, because, history_column, recommend, register_histories, similar_to, vector_column
from embeddb.train.item2vec import Item2VecRecipe, train_item2vec

DIM = 32
SHELVES = {
    "camping": "tent, stove, sleeping bag, mat, lantern, cool box, water filter, map case",
    "baking": "flour, yeast, salt, rolling pin, bread tin, scale, dough scraper, proofing basket",
    "painting": "brush, canvas, easel, turpentine, palette, oil paint, varnish, charcoal",
    "cycling": "helmet, pump, inner tube, chain oil, lock, bell, saddle bag, lights",
    "gardening": "spade, seeds, compost, watering can, gloves, pruning shears, trellis, fleece",
    "music": "strings, plectrum, tuner, capo, music stand, metronome, strap, amplifier",
    "fishing": "rod, reel, hooks, floats, landing net, waders, lures, tackle box",
    "sewing": "thread, needles, scissors, zips, buttons, pins, tape measure, patterns",
    "climbing": "rope, harness, chalk, carabiner, belay device, sling, brush kit, crash pad",
    "photography": "tripod, lens, filter, flash, camera bag, memory card, strap clip, reflector",
}
PRODUCTS = [(product, shelf) for shelf, products in SHELVES.items() for product in products.split(", ")]
Event = tuple[int, str, datetime]


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    orders: Mapped[list[Order]] = relationship()
    taste: Mapped[Vector | None] = history_column(
        "orders", item="product", vector="pooled", at="at", half_life=timedelta(days=10), dim=DIM
    )


class Product(Base):
    __tablename__ = "products"
    name: Mapped[str] = mapped_column(primary_key=True)
    pooled: Mapped[Vector | None] = vector_column(DIM, index=None)  # what tastes are made of
    target: Mapped[Vector | None] = vector_column(DIM)  # what they are compared with


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (Index("orders_customer_at", "customer_id", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    product_name: Mapped[str] = mapped_column(ForeignKey("products.name"), index=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    product: Mapped[Product] = relationship()


def history(customer: int, rng: random.Random, length: int = 12) -> list[Event]:
    """What they bought: mostly from a shelf or two, now and then anything, and one day something new to them."""
    shelves = rng.choices(list(SHELVES), weights=range(len(SHELVES), 0, -1), k=2)
    bought: dict[str, None] = {}
    while len(bought) < length:
        shelf = rng.choice(list(SHELVES)) if rng.random() < 0.1 else shelves[len(bought) > length // 2]
        bought[rng.choice(SHELVES[shelf].split(", "))] = None
    now = datetime(2026, 5, 1, tzinfo=UTC)
    return [(customer, product, now + timedelta(days=3 * day)) for day, product in enumerate(bought)]


def shelf_of(events: list[Event]) -> str:
    """What they bought most of lately."""
    shelves = dict(PRODUCTS)
    return Counter(shelves[name] for _, name, _ in events[-5:]).most_common(1)[0][0]


def main(url: str | None = None) -> list[Figure]:
    rng = random.Random(0)
    histories = {customer: history(customer, rng) for customer in range(1, 401)}
    kept = {customer: events.pop()[1] for customer, events in histories.items()}  # the last, to be foretold
    events = [event for history in histories.values() for event in history]
    with tempfile.TemporaryDirectory() as folder, database(Base, url) as sessions:
        encoder = train_item2vec(events, folder, Item2VecRecipe(dim=DIM, sample=0, epochs=20))
        embeddb.register(engine_of(sessions), Base, install=True)
        with engine_of(sessions).begin() as connection:
            register_histories(connection, Base)
        with sessions.begin() as session:
            for name, pooled, target in zip(encoder.items, encoder.pooled, encoder.targets, strict=True):
                session.add(Product(name=name, pooled=pooled, target=target))
            session.add_all(Customer(id=customer) for customer in histories)
            session.flush()
            session.add_all(Order(customer_id=user, product_name=name, at=at) for user, name, at in events)

        bestsellers = [name for name, _ in Counter(name for _, name, _ in events).most_common()]
        asked = list(histories)[::4]
        wanted = {number: shelf_of(events) for number, events in histories.items()}
        hits = popular = alike = 0
        chance = 0.0
        with sessions() as session:
            for number in asked:
                customer = session.get_one(Customer, number)
                offered = session.scalars(recommend(Customer.taste, customer, items=Product.target).limit(5)).all()
                seen = {name for _, name, _ in histories[number]}
                hits += kept[number] in [product.name for product in offered]
                like = session.scalars(similar_to(Customer.taste, customer).limit(3)).all()
                alike += sum(wanted[each.id] == wanted[number] for each in like)
                chance += sum(shelf == wanted[number] for shelf in wanted.values()) / len(wanted)
                popular += kept[number] in [name for name in bestsellers if name not in seen][:5]
            print(f"bought: {', '.join(name for _, name, _ in histories[number][-6:])}")
            print(f"offered: {', '.join(product.name for product in offered)}")
            reason = session.execute(because(Customer.taste, customer, offered[0].name).limit(1)).one()
            print(f"{offered[0].name}, because they bought: {reason[0].product_name}")
            orders = select(Order.product_name).where(Order.customer_id == like[0].id).order_by(Order.at.desc())
            print(f"who is like them bought: {', '.join(session.scalars(orders.limit(6)))}")
    return [
        Figure("last order among five offered", hits / len(asked), popular / len(asked), "the bestsellers"),
        Figure("customers alike who want the same", alike / 3 / len(asked), chance / len(asked), "by chance"),
    ]


if __name__ == "__main__":
    run(main)
