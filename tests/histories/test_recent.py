"""A network's reading of a user's last events as the user's vector: queued by an event, embedded by a worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, ForeignKey, Index, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from embeddb import Vector, because, drain, embedding_column, recommend, register, vector_column
from embeddb.encoders.history import GRU4Rec
from embeddb.errors import DeclarationError, QueryError, SourceError
from embeddb.orm.history import history_of, recent_column, register_histories, verify_history
from embeddb.sources.histories import read_history
from embeddb.train.gru4rec import GRU4RecRecipe, train_gru4rec

pytest.importorskip("torch", reason="needs the extra embeddb[history]")

LENGTH = 5
ITEMS = 12
ROWS = [(user, (user + step) % ITEMS, float(step)) for user in range(ITEMS) for step in range(6)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GRU4Rec:
    recipe = GRU4RecRecipe(dim=8, hidden=8, epochs=20, batch=4, length=LENGTH)
    return train_gru4rec(ROWS, tmp_path_factory.mktemp("gru4rec"), recipe)


class Models:
    """Classes with that encoder."""

    def __init__(self, encoder: GRU4Rec) -> None:
        class Base(DeclarativeBase):
            pass

        class Listener(Base):
            __tablename__ = "listeners"
            id: Mapped[int] = mapped_column(primary_key=True)
            recent: Mapped[str | None] = recent_column("plays", item="song", at="at", length=LENGTH)
            state: Mapped[Vector | None] = embedding_column("recent", encoder=encoder)

        class Song(Base):
            __tablename__ = "songs"
            id: Mapped[int] = mapped_column(primary_key=True)
            target: Mapped[Vector | None] = vector_column(8)

        class Play(Base):
            __tablename__ = "plays"
            id: Mapped[int] = mapped_column(primary_key=True)
            listener_id: Mapped[int] = mapped_column(ForeignKey("listeners.id"))
            song_id: Mapped[int] = mapped_column(ForeignKey("songs.id"), index=True)
            at: Mapped[float]
            song: Mapped[Song] = relationship()

        Index("plays_listener_at", Play.listener_id, Play.at)
        Listener.plays = relationship(Play, viewonly=True)
        self.base, self.listener, self.song, self.play = Base, Listener, Song, Play


@pytest.fixture(scope="module")
def models(encoder: GRU4Rec) -> Models:
    return Models(encoder)


@pytest.fixture
def filled(engine18: Engine, models: Models, encoder: GRU4Rec) -> Engine:
    with engine18.begin() as connection:
        models.base.metadata.create_all(connection)
        register(connection, models.base, install=True)
        register_histories(connection, models.base)
        connection.execute(insert(models.listener), [{"id": n} for n in range(4)])
        targets = zip(encoder.items, encoder.targets, strict=True)
        connection.execute(insert(models.song), [{"id": item, "target": target} for item, target in targets])
    return engine18


def play(engine: Engine, models: Models, *rows: tuple[int, int, float]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(models.play), [{"listener_id": u, "song_id": s, "at": at} for u, s, at in rows])


def states(engine: Engine, models: Models, encoder: GRU4Rec) -> tuple[dict[int, Any], dict[int, Any]]:
    """The vectors that are stored, and those that the encoder makes of the events."""
    stored, made = {}, {}
    with engine.connect() as connection:
        for listener, state in connection.execute(select(models.listener.id, models.listener.state)):
            events = connection.execute(
                select(models.play.song_id, models.play.at)
                .where(models.play.listener_id == listener)
                .order_by(models.play.at, models.play.id)
            ).all()
            stored[listener] = state
            made[listener] = encoder.encode_documents([[tuple(row) for row in events]])[0] if events else None
    return stored, made


def test_an_event_queues_its_user_and_a_worker_reads_the_history_anew(
    filled: Engine, models: Models, encoder: GRU4Rec
) -> None:
    play(filled, models, *((0, song, float(song)) for song in range(4)), (1, 3, 1.0))
    pending = text("SELECT pending FROM embeddb.coverage WHERE embedding = 'listeners.state'")
    for change in (
        None,
        insert(models.play).values(listener_id=0, song_id=9, at=0.5),
        insert(models.play).values(listener_id=1, song_id=4, at=9.0),
        update(models.play).where(models.play.at == 0.5).values(song_id=11),
        delete(models.play).where(models.play.listener_id == 1, models.play.song_id == 3),
    ):
        with filled.begin() as connection:
            if change is not None:
                connection.execute(change)
                assert connection.scalar(pending) == 1
        drain(filled)
        stored, made = states(filled, models, encoder)
        for listener, vector in made.items():
            if vector is None:
                assert stored[listener] is None
            else:
                np.testing.assert_allclose(stored[listener], vector, atol=1e-6)
    with filled.begin() as connection:
        connection.execute(update(models.play).values(at=models.play.at + 0))
        assert connection.scalar(pending) == 0


def test_users_of_a_network_are_recommended_what_follows(filled: Engine, models: Models) -> None:
    play(filled, models, *((0, song, float(song)) for song in range(4)))
    drain(filled)
    with Session(filled) as session:
        [song] = session.scalars(recommend(models.listener.state, 0, items=models.song.target).limit(1))
        assert song.id == 4
        cold = session.scalars(recommend(models.listener.state, 1, items=models.song.target).limit(4)).all()
        assert [song.id for song in cold] == [0, 1, 2, 3]
        rows = session.execute(because(models.listener.state, 0, 4, items=models.song.target)).all()
        assert len(rows) == 4
        assert [row.distance for row in rows] == sorted(row.distance for row in rows)
    with pytest.raises(QueryError, match="items="):
        because(models.listener.state, 0, 4)
    with pytest.raises(DeclarationError, match="no history"):
        history_of(models.song.target)


plays = st.lists(st.tuples(st.integers(0, 2), st.integers(0, ITEMS - 1), st.integers(0, 9)), min_size=1, max_size=4)
statements = st.lists(
    st.one_of(
        st.tuples(st.just("play"), plays),
        st.tuples(st.just("move"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("forget"), st.integers(0, 9)),
        st.tuples(st.just("truncate")),
    ),
    max_size=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements)
def test_after_any_statements_the_last_events_are_those(
    filled: Engine, models: Models, walk: list[tuple[Any, ...]]
) -> None:
    for kind, *rest in [("truncate",), *walk]:
        with filled.begin() as connection:
            match kind, rest:
                case "play", [rows]:
                    values = [{"listener_id": user, "song_id": song, "at": at} for user, song, at in rows]
                    connection.execute(insert(models.play).values(values))
                case "move", [one, other]:
                    moved = update(models.play).where(models.play.listener_id == one)
                    connection.execute(moved.values(listener_id=other))
                case "forget", [at]:
                    connection.execute(delete(models.play).where(models.play.at == at))
                case "truncate", []:
                    connection.execute(text("TRUNCATE plays"))
    with filled.connect() as connection:
        for listener, recent in connection.execute(select(models.listener.id, models.listener.recent)):
            events = connection.execute(
                select(models.play.song_id, models.play.at)
                .where(models.play.listener_id == listener)
                .order_by(models.play.at.desc(), models.play.id.desc())
                .limit(LENGTH)
            ).all()
            found = None if recent is None else [(event.item, event.at) for event in read_history(recent)]
            assert found == ([tuple(row) for row in reversed(events)] or None)
        assert verify_history(connection, history_of(models.listener.state).spec) == []


@pytest.mark.parametrize("given_text", ["", "{}", "[1.5]", "[[1, 2, 3, 4]]", "[[]]", "[[null]]"])
def test_what_is_no_history_is_said(given_text: str) -> None:
    with pytest.raises(SourceError, match="histor|event 0"):
        read_history(given_text)
