"""Times of events: timestamps, dates, types of an application and numbers fade alike; what is none is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Date, DateTime, Double, Engine, ForeignKey, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from embeddb import Vector, history_column, register_histories, vector_column
from embeddb.catalog.install import install
from embeddb.encoders.history import histories
from embeddb.errors import DeclarationError
from embeddb.orm.history import histories_of

DAYS = (1, 2, 4, 7)


class Stored(TypeDecorator[datetime]):
    impl = DateTime(timezone=True)
    cache_ok = True


TIMES: dict[str, tuple[Any, Any]] = {
    "date": (Date(), lambda day: date(2026, 1, day)),
    "decorated": (Stored(), lambda day: datetime(2026, 1, day, tzinfo=UTC)),
    "seconds": (Double(), lambda day: day * 86_400.0),
}


def shop(type_: Any) -> Any:
    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        events: Mapped[list[Any]] = relationship("Event")
        taste: Mapped[Vector | None] = history_column(
            "events", item="item", vector="vector", at="at", half_life=timedelta(days=2), dim=4, index=None
        )

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        vector: Mapped[Vector | None] = vector_column(4, index=None)

    class Event(Base):
        __tablename__ = "events"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
        item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
        at: Mapped[Any] = mapped_column(type_)
        item: Mapped[Item] = relationship()

    return Base, User, Item, Event


@pytest.mark.parametrize("kind", TIMES)
def test_whatever_says_when_a_day_is_a_day(engine18: Engine, kind: str) -> None:
    type_, when = TIMES[kind]
    base, user, item, event = shop(type_)
    with engine18.begin() as connection:
        install(connection)
        base.metadata.create_all(connection)
        register_histories(connection, base)
    with Session(engine18) as session, session.begin():
        session.add_all(item(id=place, vector=vector) for place, vector in enumerate(np.eye(4, dtype=np.float32)))
        session.add(user(id=1))
        session.flush()
        for place, day in enumerate(DAYS):  # one statement each: event by event
            session.add(event(user_id=1, item_id=place, at=when(day)))
            session.flush()
        expected = [0.5 ** ((DAYS[-1] - day) / 2) for day in DAYS]
        np.testing.assert_allclose(session.get_one(user, 1).taste, expected, rtol=1e-6)
    [history] = histories([(1, place, when(day)) for place, day in enumerate(DAYS)]).values()
    assert [event.at - history[0].at for event in history] == [(day - 1) * 86_400 for day in DAYS]


def test_what_orders_no_events_is_refused_where_it_is_declared() -> None:
    base, *_ = shop(Text())
    with pytest.raises(DeclarationError, match=r"events\.at is of type TEXT: a time"):
        histories_of(base)
