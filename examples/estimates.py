"""A number from the neighbours: what will this fetch, going by what was sold?

The nearest descriptions that were sold, their prices averaged by nearness: regression by neighbours, in one statement
for all that is offered. Nothing is trained, and each estimate can be explained by the sales that it rests on.
"""

from __future__ import annotations

import itertools
import random
from statistics import fmean

from common import Figure, database, run
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, embedding_column, for_each
from embeddb.encoders import SentenceTransformer

THINGS = {"table": 120, "chair": 40, "bookcase": 90, "lamp": 30, "wardrobe": 200, "desk": 140, "bench": 60}
KINDS = {"oak": 2.0, "pine": 1.0, "plastic": 0.4, "steel": 1.2, "walnut": 2.4}
STATES = {"as new": 1.3, "well kept": 1.0, "scratched": 0.7, "needs repair": 0.35}
SIZES = {"small": 0.8, "large": 1.25}
OPENINGS = ("For sale:", "Selling my", "From our cellar:", "Must go,", "")


class Base(DeclarativeBase):
    pass


class Sale(Base):
    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str]
    price: Mapped[float]
    embedding: Mapped[Vector | None] = embedding_column("description", encoder=SentenceTransformer("all-MiniLM-L6-v2"))


def offers(rng: random.Random) -> list[tuple[str, str, float]]:
    """(description, thing, price): of everything that there may be, in some order of words."""
    found = []
    for thing, kind, state, size in itertools.product(THINGS, KINDS, STATES, SIZES):
        words = [f"{size} {kind} {thing}", state, rng.choice(("to be fetched", "can be delivered", "smoke-free home"))]
        rng.shuffle(words)
        price = THINGS[thing] * KINDS[kind] * STATES[state] * SIZES[size] * rng.uniform(0.9, 1.1)
        found.append((f"{rng.choice(OPENINGS)} {', '.join(words)}".strip(), thing, price))
    rng.shuffle(found)
    return found


def explained(estimates: list[float], prices: list[float]) -> float:
    """R²: the share of the variance that the estimates explain."""
    mean = sum(prices) / len(prices)
    missed = sum((estimate - price) ** 2 for estimate, price in zip(estimates, prices, strict=True))
    return 1 - missed / sum((price - mean) ** 2 for price in prices)


def main(url: str | None = None) -> list[Figure]:
    found = offers(random.Random(0))
    sold, offered = found[:200], found[200:]
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Sale(description=description, price=price) for description, _, price in sold)
        session.commit()

        near = for_each(Sale.embedding, [description for description, _, _ in offered], k=5).subquery()
        weight = 1 / func.greatest(near.c.distance, 0.01)
        estimate = func.sum(near.c.price * weight) / func.sum(weight)
        statement = select(near.c.ordinal, estimate).group_by(near.c.ordinal).order_by(near.c.ordinal)
        estimates = [float(value) for _, value in session.execute(statement)]

    for value, (description, _, price) in list(zip(estimates, offered, strict=True))[:5]:
        print(f"{value:4.0f} estimated, {price:4.0f} paid: {description}")
    by_thing = {thing: fmean(price for _, sort, price in sold if sort == thing) for thing in THINGS}
    prices = [price for _, _, price in offered]
    control = explained([by_thing[thing] for _, thing, _ in offered], prices)
    return [Figure("variance of prices explained", explained(estimates, prices), control, "the mean of its sort")]


if __name__ == "__main__":
    run(main)
