"""Histories: HR@10 of the next item by each model, beside popularity; users' vectors kept up and recommended from.

    python -m benchmarks.histories [--threads 2] [--baskets 5000]

Synthetic users who drift through topics, and real baskets: what Debian's packages depend on, where apt has lists. Then
the same synthetic events in Postgres: one by one, some late, changed or deleted, against vectors made anew.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sqlalchemy import ForeignKey, Index, create_engine, delete, insert, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.harness import machine
from embeddb import LocalPostgres, Vector, history_column, recommend, register_histories, vector_column
from embeddb.catalog.install import install
from embeddb.encoders.history import ItemVectors, histories
from embeddb.encoders.history.base import HistoryEncoder
from embeddb.train.als import train_als
from embeddb.train.gru4rec import train_gru4rec
from embeddb.train.item2vec import train_item2vec
from embeddb.train.leave_one_out import LeaveOneOut
from tests.histories.debian_baskets import debian_baskets
from tests.histories.drifting_users import drifting_users

DAY: Final = 86_400.0
DIM: Final = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--baskets", type=int, default=5_000, help="of Debian's packages, at most")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(f"{machine()}, {options.threads} threads")
    table = Table("users", "model", "HR@10", "popularity", "ratio", "seconds of training")
    baskets = histories(debian_baskets())
    every = max(1, len(baskets) // options.baskets)
    measure(table, "drifting", LeaveOneOut.of(histories(drifting_users())))
    if baskets:
        measure(table, "Debian packages", LeaveOneOut.of({user: baskets[user] for user in list(baskets)[::every]}))
    else:
        console.print("apt has no package lists here: Debian's baskets are left out")
    console.print(table)
    with LocalPostgres() as server:
        console.print(keep_up(server.url, drifting_users()))


def keep_up(url: str, rows: Sequence[tuple[int, int, float, float]]) -> Table:
    """Events one by one: milliseconds of each with and without triggers, and how far the vectors are from new ones."""
    engine = create_engine(url)
    items = sorted({item for _, item, _, _ in rows})
    vectors = np.random.default_rng(0).standard_normal((len(items), DIM)).astype(np.float32)
    rng = np.random.default_rng(1)
    order = np.argsort([at + 3 * DAY * (rng.random() < 0.05) for _, _, at, _ in rows])  # one in twenty comes late
    seconds: dict[bool, list[float]] = {}
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        install(connection)
        Base.metadata.create_all(connection)
        connection.execute(insert(User), [{"id": user} for user in sorted({user for user, *_ in rows})])
        listed = zip(items, vectors, strict=True)
        connection.execute(insert(Item), [{"id": item, "vector": vector} for item, vector in listed])
        connection.exec_driver_sql("ANALYZE")
        for kept_up in (False, True):
            connection.execute(delete(Event))
            if kept_up:
                register_histories(connection, Base)
            seconds[kept_up] = []
            for place in order:
                user, item, at, weight = rows[place]
                begin = time.perf_counter()
                connection.execute(insert(Event), {"user_id": user, "item_id": item, "at": at, "weight": weight})
                seconds[kept_up].append(time.perf_counter() - begin)
        connection.execute(delete(Event).where(Event.id % 50 == 0))
        connection.execute(update(Event).where(Event.id % 50 == 1).values(weight=2.0))
        anew = text(
            "SELECT max((u.taste <-> c.v) / vector_norm(c.v))"
            " FROM users u CROSS JOIN LATERAL (SELECT embeddb.history_users_taste_compute(u.id) AS v) AS c"
        )
        worst = connection.scalar(anew)
        asked = []
        for user in range(200):
            begin = time.perf_counter()
            connection.execute(recommend(User.taste, user, items=Item.vector).limit(10)).all()
            asked.append(time.perf_counter() - begin)
    engine.dispose()
    table = Table("Postgres", "median", "95 of 100")
    for name, times in (
        ("insert of an event, no triggers, ms", seconds[False]),
        ("the same, with a history, ms", seconds[True]),
        ("recommend 10 of 1,000 items, ms", asked),
    ):
        table.add_row(name, *(f"{1000 * float(value):.2f}" for value in np.percentile(times, [50, 95])))
    table.add_row(f"farthest of {len(rows):,} events' vectors from those made anew, relative", f"{worst:.1e}", "")
    return table


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    events: Mapped[list[Event]] = relationship(viewonly=True)
    taste: Mapped[Vector | None] = history_column(
        "events", item="item", vector="vector", at="at", weight="weight", half_life=2 * DAY, dim=DIM
    )


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    vector: Mapped[Vector | None] = vector_column(DIM)


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    at: Mapped[float]
    weight: Mapped[float]
    item: Mapped[Item] = relationship()
    __table_args__ = (Index("events_user_at", "user_id", "at"),)


def measure(table: Table, users: str, split: LeaveOneOut) -> None:
    """A row for each model."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        models: dict[str, Callable[[], HistoryEncoder]] = {
            "item2vec": lambda: train_item2vec(split.train, place / "item2vec"),
            "item2vec, half-life of two events": lambda: ItemVectors(str(place / "item2vec"), 2, "events"),
            "ALS": lambda: train_als(split.train, place / "als"),
            "GRU4Rec": lambda: train_gru4rec(split.train, place / "gru4rec"),
        }
        for name, make in models.items():
            begin = time.perf_counter()
            encoder = make()
            seconds = time.perf_counter() - begin
            rates = split.hit_rates(encoder)
            ratio = f"{rates.model / rates.popularity:.1f}"
            table.add_row(users, name, f"{rates.model:.3f}", f"{rates.popularity:.3f}", ratio, f"{seconds:.0f}")


if __name__ == "__main__":
    main()
