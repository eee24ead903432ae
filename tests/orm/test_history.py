"""A history column is, after any statement of any session, the pooled vectors of its user's items."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import URL, DateTime, Engine, Float, ForeignKey, Index, Integer, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from embeddb import Vector
from embeddb.catalog.install import install
from embeddb.encoders.history.pooling import Decay, pool
from embeddb.errors import DeclarationError
from embeddb.orm.history import (
    histories_of,
    history_column,
    register_histories,
    unregister_history,
    verify_history,
)
from embeddb.orm.types import VECTOR
from embeddb.vectors import to_text

DIM = 6
START = datetime(2026, 5, 4, tzinfo=UTC)
WEEK = timedelta(days=7)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    events: Mapped[list[Play]] = relationship()
    taste: Mapped[Vector | None] = history_column(
        "events", item="track", vector="sound", at="at", weight="weight", half_life=WEEK, dim=DIM
    )
    lately: Mapped[Vector | None] = history_column(
        "events", item="track", vector="sound", at="at", half_life=2, unit="events", dim=DIM
    )
    ever: Mapped[Vector | None] = history_column("events", item="track", vector="sound", at="at", dim=DIM)


class Track(Base):
    __tablename__ = "Tracks of music"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    sound: Mapped[Vector | None] = mapped_column(VECTOR(DIM))


class Play(Base):
    __tablename__ = "plays"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    track_id: Mapped[int] = mapped_column(ForeignKey("Tracks of music.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    weight: Mapped[float] = mapped_column(default=1.0)
    note: Mapped[str | None]
    track: Mapped[Track] = relationship()


Index("plays_user_at", Play.user_id, Play.at)

SOUNDS = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        install(connection)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(User), [{"id": number} for number in range(3)])
        # The last has no vector yet: a cold item.
        sounds = [*SOUNDS[:4], None]
        rows = [{"id": number, "title": f"t{number}", "sound": sound} for number, sound in enumerate(sounds)]
        connection.execute(insert(Track), rows)
        register_histories(connection, Base)


@pytest.fixture(scope="module")
def filled(module_engine: Engine) -> Engine:
    fill(module_engine)
    return module_engine


@pytest.fixture
def filled18(engine18: Engine) -> Engine:
    fill(engine18)
    return engine18


def expected(session: Session, user: int) -> dict[str, NDArray[np.float32] | None]:
    """The reference, in numpy, from what the tables hold."""
    plays = session.execute(
        select(Track.sound, Play.at, Play.weight)
        .join(Track, Play.track_id == Track.id)
        .where(Play.user_id == user, Track.sound.is_not(None))
        .order_by(Play.at, Play.id)
    ).all()
    found: dict[str, NDArray[np.float32] | None] = {}
    decays = {"taste": Decay(WEEK.total_seconds()), "lately": Decay(2, "events"), "ever": None}
    for name, decay in decays.items():
        events = [
            (np.asarray(sound, np.float32), at.timestamp(), weight if name == "taste" else 1.0)
            for sound, at, weight in plays
        ]
        found[name] = pool(events, DIM, decay).vector if events else None
    return found


def check(engine: Engine) -> None:
    with Session(engine) as session:
        for user in session.scalars(select(User.id)).all():
            stored = session.execute(select(User.taste, User.lately, User.ever).where(User.id == user)).one()
            for name, vector in expected(session, user).items():
                kept = getattr(stored, name)
                assert (kept is None) == (vector is None), (user, name)
                if vector is not None:
                    np.testing.assert_allclose(
                        kept, vector, rtol=0, atol=1e-6 * max(1.0, float(np.linalg.norm(vector)))
                    )
        for history in histories_of(Base):
            assert verify_history(session.connection(), history.spec) == []


def anew(engine: Engine) -> list[tuple[str | None, ...]]:
    """The vectors as the database has them, and made anew: as text, which is exact."""
    names = ", ".join(
        f"{name}::text, embeddb.history_users_{name}_compute(id)::text" for name in ("taste", "lately", "ever")
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {names} FROM users ORDER BY id"))]


plays = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 30), st.sampled_from([0.5, 1.0, 3.0])),
    min_size=1,
    max_size=4,
)
statements = st.lists(
    st.one_of(
        st.tuples(st.just("play"), plays),
        st.tuples(st.just("reweigh"), st.integers(0, 40), st.sampled_from([0.25, 2.0])),
        st.tuples(st.just("move"), st.integers(0, 40), st.integers(0, 2)),
        st.tuples(st.just("forget"), st.integers(0, 40)),
        st.tuples(st.just("annotate"), st.integers(0, 40)),
        st.tuples(st.just("retrain"), st.integers(0, 4), st.integers(0, 4)),
        st.tuples(st.just("withdraw"), st.integers(0, 3)),
        st.tuples(st.just("truncate")),
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements)
def test_after_any_statements_every_vector_is_that_of_its_events(filled: Engine, walk: list[tuple[Any, ...]]) -> None:
    with filled.begin() as connection:
        connection.execute(text("TRUNCATE plays RESTART IDENTITY"))
        for number, sound in enumerate([*SOUNDS[:4], None]):
            connection.execute(update(Track).where(Track.id == number).values(sound=sound))
    for kind, *rest in walk:
        with filled.begin() as connection:
            match kind, rest:
                case "play", [rows]:
                    values = [
                        {"user_id": user, "track_id": track, "at": START + timedelta(days=day), "weight": weight}
                        for user, track, day, weight in rows
                    ]
                    connection.execute(insert(Play).values(values))
                case "reweigh", [play, weight]:
                    connection.execute(update(Play).where(Play.id == play).values(weight=weight))
                case "move", [play, user]:
                    connection.execute(update(Play).where(Play.id >= play).values(user_id=user))
                case "forget", [play]:
                    connection.execute(delete(Play).where(Play.id == play))
                case "annotate", [play]:
                    connection.execute(update(Play).where(Play.id == play).values(note="x"))
                case "retrain", [track, sound]:
                    connection.execute(update(Track).where(Track.id == track).values(sound=SOUNDS[sound]))
                case "withdraw", [track]:
                    connection.execute(update(Track).where(Track.id == track).values(sound=None))
                case "truncate", []:
                    connection.execute(text("TRUNCATE plays"))
        for stored in anew(filled):
            assert stored[::2] == stored[1::2]
    check(filled)


def test_events_one_by_one_and_all_at_once_give_the_same_bits(filled18: Engine) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "track_id": int(rng.integers(5)),
            "at": START + timedelta(seconds=float(second)),
            "weight": float(rng.uniform(0.1, 3)),
        }
        for second in np.sort(rng.uniform(0, 1e8, 300))
    ]
    with filled18.begin() as connection:
        for row in rows:
            connection.execute(insert(Play), {**row, "user_id": 0})
        connection.execute(insert(Play).values([{**row, "user_id": 1} for row in rows]))
    stored = anew(filled18)
    assert stored[0] == stored[1]
    assert stored[2] == (None,) * 6
    check(filled18)


def test_copy_is_heard_as_insert_is(filled18: Engine, url18: URL) -> None:
    dsn = url18.set(drivername="postgresql").render_as_string(hide_password=False)
    statement = "COPY plays (user_id, track_id, at, weight) FROM STDIN"
    with psycopg.connect(dsn) as connection, connection.cursor().copy(statement) as copy:
        for number in range(500):
            copy.write_row((number % 2, number % 5, START + timedelta(hours=number), 1.0))
    check(filled18)


def test_what_has_faded_beyond_float32_is_nothing_and_no_error(filled18: Engine) -> None:
    with filled18.begin() as connection:
        for number in range(5):
            one = np.zeros(DIM, np.float32)
            one[number] = 1e-3
            connection.execute(update(Track).where(Track.id == number).values(sound=one))
        # 90 half-lives between events: two of them are below what float32 holds.
        for number in range(5):
            at = START + 90 * number * WEEK
            connection.execute(insert(Play), {"user_id": 0, "track_id": number, "at": at})
        connection.execute(insert(Play), {"user_id": 0, "track_id": 0, "at": START + 40_000 * WEEK})
    check(filled18)


@pytest.mark.parametrize("minutes", [(1, 2), (2, 1)], ids=["in order", "late"])
def test_the_second_of_two_writers_for_one_user_adds_to_what_the_first_wrote(
    filled18: Engine, minutes: tuple[int, int]
) -> None:
    plays = [{"user_id": 0, "track_id": n, "at": START + timedelta(minutes=minute)} for n, minute in enumerate(minutes)]

    def write() -> None:
        with filled18.begin() as connection:
            connection.execute(insert(Play), plays[1])

    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ThreadPoolExecutor(1) as threads, filled18.connect() as first, filled18.connect() as watch:
        first.execute(insert(Play), plays[0])
        second = threads.submit(write)
        for _ in range(500):
            if watch.scalar(waiting):
                break
            assert not second.done(), "the second writer did not wait for the first"
            time.sleep(0.01)
        first.commit()
        second.result(timeout=10)
    for stored in anew(filled18):
        assert stored[::2] == stored[1::2]
    check(filled18)


def test_many_writers_at_once_lose_no_event(filled18: Engine) -> None:
    def write(track: int) -> None:
        for number in range(20):
            with filled18.begin() as connection:
                at = START + timedelta(minutes=number)
                connection.execute(insert(Play), {"user_id": number % 2, "track_id": track, "at": at})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    check(filled18)


def test_a_writer_of_events_needs_no_right_on_users_or_items(filled18: Engine) -> None:
    with filled18.begin() as connection:
        connection.execute(text("CREATE ROLE listener"))
        connection.execute(text("GRANT INSERT ON plays TO listener"))
        connection.execute(text("GRANT USAGE ON SEQUENCE plays_id_seq TO listener"))
        connection.execute(text("SET LOCAL ROLE listener"))
        connection.execute(
            text("INSERT INTO plays (user_id, track_id, at, weight) VALUES (0, 1, now(), 1)"),
        )
        with pytest.raises(Exception, match="permission denied for (schema|function)"), connection.begin_nested():
            connection.execute(text("SELECT embeddb.history_users_taste_rebuild()"))
        connection.execute(text("RESET ROLE"))
    check(filled18)
    with filled18.begin() as connection:
        connection.execute(text("DROP OWNED BY listener"))
        connection.execute(text("DROP ROLE listener"))


def test_a_vector_changed_behind_the_triggers_is_found_and_made_anew(filled18: Engine) -> None:
    with filled18.begin() as connection:
        connection.execute(insert(Play), {"user_id": 1, "track_id": 1, "at": START})
        connection.execute(text("UPDATE users SET taste = :taste WHERE id = 1"), {"taste": to_text(SOUNDS[0])})
        [taste] = [history for history in histories_of(Base) if history.name == "users.taste"]
        assert verify_history(connection, taste.spec) == ["1"]
        register_histories(connection, Base)
        assert verify_history(connection, taste.spec) == []


def test_unregistering_takes_the_triggers_and_leaves_the_vectors(filled18: Engine) -> None:
    with filled18.begin() as connection:
        connection.execute(insert(Play), {"user_id": 1, "track_id": 1, "at": START})
        for history in histories_of(Base):
            unregister_history(connection, history.spec)
            unregister_history(connection, history.spec)
        connection.execute(insert(Play), {"user_id": 2, "track_id": 1, "at": START})
        kept = connection.scalars(select(User.id).where(User.taste.is_not(None))).all()
        assert kept == [1]
        left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'embeddb'::regnamespace AND proname LIKE 'history%'"
        assert connection.scalar(text(left)) == 0


def test_the_last_event_is_found_by_the_index_on_user_and_time(filled18: Engine) -> None:
    with filled18.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO plays (user_id, track_id, at, weight) SELECT n % 3, n % 5, '2026-05-04'::timestamptz"
                " + n * interval '1 minute', 1 FROM generate_series(1, 20000) AS n"
            )
        )
        connection.execute(text("ANALYZE plays"))
        plan = "\n".join(
            connection.scalars(
                text(
                    'EXPLAIN SELECT v.at, v.id FROM plays v JOIN "Tracks of music" i ON i.id = v.track_id'
                    " WHERE v.user_id = 1 AND i.sound IS NOT NULL ORDER BY v.at DESC, v.id DESC LIMIT 1"
                )
            )
        )
    assert "Index Scan Backward using plays_user_at" in plan


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"events": "nothing"}, "Listener.nothing is no relationship"),
        ({"item": "at"}, "Heard.at is no relationship"),
        ({"vector": "colour"}, "no column 'colour', only id, sound"),
        ({"weight": "mass"}, "no column 'mass'"),
        ({"dim": 7}, "dim=7, but songs.sound has 6"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name(change: dict[str, Any], fault: str) -> None:
    class Other(DeclarativeBase):
        pass

    said: dict[str, Any] = {"events": "events", "item": "song", "vector": "sound", "at": "at", "dim": DIM, **change}

    class Listener(Other):
        __tablename__ = "listeners"
        id = mapped_column(Integer, primary_key=True)
        taste = history_column(said.pop("events"), **said)

    class Song(Other):
        __tablename__ = "songs"
        id = mapped_column(Integer, primary_key=True)
        sound = mapped_column(VECTOR(DIM))

    class Heard(Other):
        __tablename__ = "heard"
        id = mapped_column(Integer, primary_key=True)
        listener_id = mapped_column(ForeignKey("listeners.id"))
        song_id = mapped_column(ForeignKey("songs.id"))
        at = mapped_column(Float)
        song = relationship(Song)

    Listener.events = relationship(Heard)
    with pytest.raises(DeclarationError, match=fault):
        histories_of(Other)
