"""The hooks: every way in which a session writes leaves each committed row with the embedding of its sources."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, bindparam, event, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient,
    mapped_column,
    scoped_session,
    sessionmaker,
    undefer,
)

from embeddb import Vector, embedding_column, embedding_mode, install, nearest, uninstall
from embeddb.encoders import Modality, Vectors
from embeddb.errors import EncoderError, QueryError, RateLimited, VectorError
from tests.orm.models import HASHING, Article, Base, Tag, violations


@pytest.fixture
def tables(engine18: Engine) -> Engine:
    Base.metadata.create_all(engine18)
    return engine18


@pytest.fixture
def make_session(tables: Engine) -> sessionmaker[Session]:
    factory = sessionmaker(tables)
    install(factory)
    return factory


@pytest.fixture
def session(make_session: sessionmaker[Session]) -> Iterator[Session]:
    with make_session() as session:
        yield session
        session.rollback()
        assert violations(session) == []


def same(one: Vector | None, other: Vector | None) -> bool:
    """Whether both are there and equal."""
    return one is not None and other is not None and np.array_equal(one, other)


class Counting:
    """An encoder that notes what it was asked for, and fails or stalls on demand."""

    modality: Modality = "text"
    dim = 32
    fingerprint = "counting"
    config: Mapping[str, Any] = {"type": "counting"}

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.error: Exception | None = None
        self.seconds = 0.0

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        self.calls.append(list(inputs))
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return HASHING.encode_documents(inputs)

    encode_queries = encode_documents


COUNTING = Counting()


class CountedBase(DeclarativeBase):
    pass


class Counted(CountedBase):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    body: Mapped[str | None]
    other: Mapped[int] = mapped_column(default=0)
    first: Mapped[Vector | None] = embedding_column("title", encoder=COUNTING)
    second: Mapped[Vector | None] = embedding_column("body", encoder=COUNTING)


@pytest.fixture
def counting() -> Iterator[Counting]:
    COUNTING.__init__()  # type: ignore[misc]
    yield COUNTING
    COUNTING.__init__()  # type: ignore[misc]


@pytest.fixture
def counted(engine18: Engine, counting: Counting) -> sessionmaker[Session]:
    CountedBase.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    return factory


# --- every way to write ---------------------------------------------------------------------------------------


def test_add_change_delete(session: Session) -> None:
    article = Article(title="flying boats", body="they land on water")
    session.add(article)
    session.commit()
    before = article.embedding
    article.year = 1930
    session.commit()
    assert same(article.embedding, before)
    article.body = None
    session.commit()
    assert article.embedding is not None
    assert not same(article.embedding, before)
    article.title, article.body = " ", ""
    session.commit()
    assert article.embedding is None
    session.delete(article)
    session.commit()


WRITES: dict[str, Callable[[Session], Any]] = {
    "bulk insert": lambda s: s.execute(insert(Article), [{"title": "a", "body": "b"}, {"title": "c"}]),
    "one dictionary": lambda s: s.execute(insert(Article), {"title": "a", "body": "b"}),
    "values": lambda s: s.execute(insert(Article).values(title="a", body="b")),
    "values by column": lambda s: s.execute(insert(Article).values({Article.title: "a", Article.body: "b"})),
    "many values": lambda s: s.execute(
        insert(Article).values([{"title": "a", "body": "b"}, {"title": "c", "body": "d"}])
    ),
    "values and rows": lambda s: s.execute(insert(Article).values(body="same"), [{"title": "a"}, {"title": "b"}]),
    "a default": lambda s: s.execute(insert(Tag), [{"shelf": "1", "label": "a"}, {"shelf": "2", "label": "b"}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects(iter([Article(title="a", body="b"), Tag(shelf="3", label="c")])),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Article.__mapper__, [{"title": "a", "body": "b"}]),
    "merge": lambda s: s.merge(Article(id=77, title="merged", body="in")),
    "update": lambda s: s.execute(update(Article).values(title="new").where(Article.year < 3000)),
    "update by expression": lambda s: s.execute(update(Article).values(title=func.upper(Article.title))),
    "update by key": lambda s: s.execute(update(Article), [{"id": 1001, "body": "anew"}, {"id": 1002, "title": "t"}]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Article.__mapper__, [{"id": 1001, "body": "mapped"}]),
    "query update": lambda s: s.query(Article).filter(Article.id == 1001).update({"title": "queried"}),
    "update from parameters": lambda s: s.execute(
        update(Article).where(Article.title == bindparam("was")), {"was": "old", "title": "given"}
    ),
    "update of the key as well": lambda s: s.execute(
        update(Article).where(Article.id == 1001).values(id=Article.id + 7, title="moved")
    ),
    "update by columns in order": lambda s: s.execute(
        update(Article).ordered_values((Article.title, "first"), (Article.body, Article.title))
    ),
    "update from another table": lambda s: s.execute(
        update(Article).where(Article.title == Tag.label).values(title=Tag.note)
    ),
    "update of no source": lambda s: s.execute(update(Article).values(year=1).where(Article.id == 1001)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_every_way_to_write(session: Session, write: Callable[[Session], Any]) -> None:
    session.add_all([Article(id=1001, title="old", body="kept"), Article(id=1002, title="older", body=None)])
    session.commit()
    write(session)
    session.commit()
    rows = session.scalar(select(func.count()).select_from(Article).where(Article.embedding.is_not(None)))
    assert rows is not None
    assert rows >= 2
    assert violations(session) == []


def test_core_needs_no_install(tables: Engine) -> None:
    with sessionmaker(tables).begin() as session:
        session.add(Article(title="no hook", body=None))
    with Session(tables) as session:
        assert session.scalar(select(Article.embedding)) is None


def test_returning(session: Session) -> None:
    statement = insert(Article).returning(Article.id, Article.embedding)
    rows = session.execute(statement, [{"title": "one"}, {"title": "two"}]).all()
    assert same(rows[1].embedding, HASHING.encode_documents(["two"])[0])
    (article,) = session.scalars(insert(Article).values(title="three").returning(Article)).all()
    assert same(article.embedding, HASHING.encode_documents(["three"])[0])


def test_update_returning(session: Session) -> None:
    session.add_all([Article(id=1, title="a"), Article(id=2, title="b")])
    session.commit()
    renamed = update(Article).values(title=func.upper(Article.title) + "!")
    both = renamed.returning(Article).options(undefer(Article.embedding))
    articles = session.scalars(both, execution_options={"populate_existing": True}).all()
    assert [article.title for article in articles] == ["A!", "B!"]
    assert same(articles[1].embedding, HASHING.encode_documents(["B!"])[0])
    assert session.execute(renamed.where(Article.id == 1).returning(Article.id)).all() == [(1,)]
    with pytest.raises(QueryError, match=r"RETURNING articles\.embedding would give the vector of the old sources"):
        session.execute(renamed.returning(Article.id, Article.embedding))


def test_an_update_that_gives_every_source_is_one_statement(session: Session) -> None:
    session.add_all([Article(id=number, title="old") for number in (1, 2, 3)])
    session.commit()
    loaded = session.get_one(Article, 1, options=[undefer(Article.embedding)])
    sent: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda c, cur, statement, *rest: sent.append(statement))
    given = update(Article).where(Article.id < 3).values(title="new", body="of all")
    returned = session.scalars(given.returning(Article.embedding)).all()
    assert [statement.split()[0] for statement in sent] == ["UPDATE"]
    assert len(returned) == 2
    assert all(same(vector, HASHING.encode_documents(["new\nof all"])[0]) for vector in returned)
    assert same(loaded.embedding, returned[0])
    session.execute(update(Article).where(Article.id == 2), {"title": "by parameters", "body": None})
    session.execute(update(Article).where(Article.id == 3).ordered_values((Article.title, "in order"), ("body", "too")))
    session.commit()
    assert session.scalars(select(Article.title).order_by(Article.id)).all() == ["new", "by parameters", "in order"]
    assert violations(session) == []
    session.execute(given.values(title=" ", body=None))
    assert loaded.embedding is None


@pytest.mark.parametrize("title", ["changed", "as it was"])
def test_a_vector_that_came_along_is_not_the_writers(session: Session, title: str) -> None:
    """Merged, unpickled and copied objects hold the vector of their old sources."""
    session.add_all([Article(id=number, title="as it was") for number in range(3)])
    session.commit()
    loaded = session.scalars(select(Article).options(undefer(Article.embedding)).order_by(Article.id)).all()
    detached, pickled = loaded[0], pickle.loads(pickle.dumps(loaded[1]))
    session.expunge_all()
    make_transient(loaded[2])
    loaded[2].id = 100
    for article in (detached, pickled, loaded[2]):
        article.title = title
    with session.no_autoflush:
        session.merge(detached)
        session.merge(pickled)
    session.add(loaded[2])
    sent: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda c, cur, statement, *rest: sent.append(statement))
    session.commit()
    # Both rows' vectors are read at once, to tell whose they are.
    assert sum(statement.startswith("SELECT articles.id, vector_send(") for statement in sent) == (title == "changed")
    assert session.scalars(select(Article.title)).all().count(title) >= 3
    assert violations(session) == []


def test_an_update_of_more_rows_than_a_statement_takes_parameters(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embeddb.orm.stored._PARAMETERS", 4)
    session.add_all([Tag(shelf="s", label=str(number)) for number in range(5)])
    session.commit()
    session.execute(update(Tag).values(note=Tag.label + " noted"))


def test_rowcount_and_result_survive(session: Session) -> None:
    session.add_all([Article(title="a"), Article(title="b")])
    session.flush()
    assert session.execute(update(Article).values(title="c")).rowcount == 2  # type: ignore[attr-defined]


def test_upserts(session: Session) -> None:
    def upsert(rows: list[dict[str, Any]], *sources: str) -> None:
        statement = pg_insert(Tag)
        changes = {name: statement.excluded[name] for name in sources}
        session.execute(statement.on_conflict_do_update(index_elements=["shelf", "label"], set_=changes), rows)
        session.commit()

    upsert([{"shelf": "a", "label": "x", "note": "one"}], "note", "label")
    upsert([{"shelf": "a", "label": "x", "note": "two"}, {"shelf": "a", "label": "y", "note": "new"}], "label", "note")
    assert violations(session) == []
    assert session.scalar(select(Tag.note).where(Tag.label == "x")) == "two"
    # Only some of the sources are taken from the proposed row: its vector is not the stored row's.
    upsert([{"shelf": "a", "label": "x", "note": "three"}], "note")
    assert session.scalar(select(Tag.halves).where(Tag.label == "x")) is None
    session.execute(pg_insert(Tag).on_conflict_do_nothing(), [{"shelf": "a", "label": "y", "note": "not written"}])
    session.execute(update(Tag).values(note="four"))
    session.commit()


def test_vectors_of_the_writer_are_kept_and_checked(session: Session) -> None:
    mine = np.arange(1, 33, dtype=np.float32)
    article = Article(title="mine", embedding=mine)
    session.add(article)
    session.commit()
    assert same(article.embedding, mine)
    article.year = 5
    session.commit()
    assert same(article.embedding, mine)
    article.title, article.embedding = "both", mine * 2
    session.commit()
    assert same(article.embedding, mine * 2)
    for bad, words in [
        (mine[:3], r"articles\.embedding of Article\(id=\d+\) has 3 dimensions.*32"),
        (mine * np.nan, r"Article\(id=\d+\).*NaN"),
        (mine * 0, r"Article\(id=\d+\).*zeros"),
    ]:
        article.embedding = bad
        with pytest.raises(VectorError, match=words):
            session.flush()
        session.rollback()
    session.add(Article(id=4321, title="x", embedding=[1.0]))
    with pytest.raises(VectorError, match=r"articles\.embedding of .*Article\(id=4321\) has 1 dimensions"):
        session.flush()
    session.rollback()
    with pytest.raises(VectorError, match=r"articles\.embedding of row 2 has 1 dimensions"):
        session.execute(insert(Article), [{"title": "x", "embedding": mine}, {"title": "y", "embedding": [1.0]}])
    session.rollback()
    article.embedding = None
    session.commit()
    session.execute(update(Article).values(title="both"))


def test_sql_expressions_leave_the_vector_empty(session: Session) -> None:
    article = Article(title=func.upper("only the database knows"))
    session.add(article)
    session.commit()
    assert article.embedding is None
    assert article.title == "ONLY THE DATABASE KNOWS"
    session.delete(article)
    session.commit()


def test_sources_changed_by_later_listeners(make_session: sessionmaker[Session]) -> None:
    @event.listens_for(make_session, "before_flush")
    def shout(session: Session, context: Any, instances: Any) -> None:
        for row in session.new:
            row.title = row.title.upper()

    @event.listens_for(Article, "before_insert")
    def stamp(mapper: Any, connection: Any, target: Article) -> None:
        target.body = "stamped"

    @event.listens_for(Article, "before_update")
    def count(mapper: Any, connection: Any, target: Article) -> None:
        target.body = f"{target.body}+"

    try:
        with make_session() as session:
            article = Article(title="quiet", body="plain")
            session.add(article)
            session.commit()
            assert (article.title, article.body) == ("QUIET", "stamped")
            assert violations(session) == []
            article.year = 1950  # no source, but the listener makes it one
            session.commit()
            assert article.body == "stamped+"
            article.title = "loud"
            session.commit()
            assert article.body == "stamped++"
            assert violations(session) == []
    finally:
        event.remove(Article, "before_insert", stamp)
        event.remove(Article, "before_update", count)


def test_failed_flush_then_another_try(session: Session) -> None:
    session.add(Article(id=1, title="first"))
    session.commit()
    again = Article(id=1, title="same key")
    session.add(again)
    with pytest.raises(Exception, match="unique constraint|conflicts with"):
        session.commit()
    session.rollback()
    again.id, again.title = 2, "another title"
    session.add(again)
    session.commit()


# --- one batch, each text once --------------------------------------------------------------------------------


def test_one_batch_for_each_encoder(counted: sessionmaker[Session], counting: Counting) -> None:
    with counted() as session:
        session.add_all([Counted(title=f"t{n}", body=f"b{n % 2}") for n in range(10)])
        session.commit()
        assert len(counting.calls) == 1
        assert sorted(counting.calls[0]) == ["b0", "b1", *(f"t{n}" for n in range(10))]
        counting.calls.clear()
        row = session.scalars(select(Counted)).first()
        assert row is not None
        row.other = 5
        session.commit()
        assert counting.calls == []
        row.body = "changed"
        session.flush()
        row.other = 6
        session.commit()
        assert counting.calls == [["changed"]]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), EncoderError("bad input"), RateLimited("slow down")])
def test_a_failing_encoder_names_rows_and_loses_nothing(
    counted: sessionmaker[Session], counting: Counting, error: Exception
) -> None:
    with counted() as session:
        session.add(Counted(id=7, title="kept"))
        session.flush()
        counting.error = error
        row = Counted(id=8, title="fails")
        session.add(row)
        with pytest.raises(EncoderError, match=rf"counted\.first of .*Counted\(id=8\).*{error}") as caught:
            session.flush()
        assert "Counting" in str(caught.value)
        assert isinstance(caught.value, RateLimited) == isinstance(error, RateLimited)
        # Nothing was rolled back: the same session goes on, and the same flush can be tried again.
        counting.error = None
        session.commit()
        assert session.scalars(select(Counted.id).where(Counted.first.is_not(None)).order_by(Counted.id)).all() == [
            7,
            8,
        ]


def test_an_update_whose_encoder_fails_leaves_no_vector_of_old_sources(
    counted: sessionmaker[Session], counting: Counting
) -> None:
    with counted() as session:
        row = Counted(id=1, title="old", body="old")
        session.add_all([row, Counted(id=2, title="other", body="other")])
        session.commit()
        assert row.first is not None
        counting.error = RuntimeError("out of memory")
        with pytest.raises(EncoderError, match=r"counted\.first of row 1.*out of memory"):
            session.execute(update(Counted).where(Counted.id == 1).values(title="new", body="new"))
        assert session.scalars(select(Counted.title).order_by(Counted.id)).all() == ["old", "other"]  # nothing ran
        with pytest.raises(EncoderError, match=r"counted\.first of row 1.*out of memory"):
            session.execute(update(Counted).where(Counted.id == 1).values(title=func.upper("new"), body=func.now()))
        session.commit()
        changed, other = session.execute(select(Counted.__table__).order_by(Counted.id)).all()
        assert (changed.title, changed.first, changed.second) == ("NEW", None, None)
        assert other.first is not None
        assert row.first is row.second is None


def test_embedding_mode(counted: sessionmaker[Session], counting: Counting) -> None:
    with counted() as session:
        with embedding_mode("queued"):
            session.add(Counted(title="later"))
            session.execute(insert(Counted), [{"title": "later too"}])
            with embedding_mode("inline"):
                session.add(Counted(title="now"))
                session.flush()
            session.commit()
        assert counting.calls == [["now"]]
        embedded = session.execute(select(Counted.title, Counted.first.is_not(None)).order_by(Counted.id)).all()
        assert dict(embedded) == {"later": False, "later too": False, "now": True}


def test_uninstall_takes_everything_away(tables: Engine) -> None:
    factory = sessionmaker(tables)
    before = dict(vars(factory.class_))
    install(factory)
    install(factory)
    uninstall(factory)
    uninstall(factory)
    after = {k: v for k, v in vars(factory.class_).items() if k != "dispatch"}
    assert after == {k: v for k, v in before.items() if k != "dispatch"}
    with factory.begin() as session:
        session.add(Article(title="not embedded"))
        session.bulk_save_objects([Article(title="nor this")])
    with factory.begin() as session:
        assert session.scalars(select(Article.embedding)).all() == [None, None]


def test_uninstall_puts_back_what_install_replaced(tables: Engine) -> None:
    class Audited(Session):
        def bulk_save_objects(self, objects: Any, *args: Any, **options: Any) -> None:
            self.info["saved"] = len(objects)
            super().bulk_save_objects(objects, *args, **options)

    before = dict(vars(Audited))
    install(Audited)
    with Audited(tables) as session:
        session.bulk_save_objects([Article(title="audited")])
        assert session.info["saved"] == 1
        assert session.scalars(select(Article.embedding)).one() is not None
    uninstall(Audited)
    assert vars(Audited)["bulk_save_objects"] is before["bulk_save_objects"]


def test_every_session_target(tables: Engine) -> None:
    class OwnSession(Session):
        pass

    one = Session(tables)
    targets: list[tuple[Any, Callable[[], Any]]] = [
        (OwnSession, lambda: OwnSession(tables)),
        (one, lambda: one),
    ]
    scoped = scoped_session(sessionmaker(tables))
    targets.append((scoped, lambda: scoped()))
    for target, make in targets:
        install(target)
        with make() as session:
            session.add(Article(title="any session"))
            session.bulk_save_objects([Article(title="and its bulk methods")])
            session.commit()
            assert session.scalars(select(Article.id).where(Article.embedding.is_(None))).all() == []
        uninstall(target)


# --- async ----------------------------------------------------------------------------------------------------


async def test_the_event_loop_stays_free(async_engine18: AsyncEngine, counting: Counting) -> None:
    async with async_engine18.begin() as connection:
        await connection.run_sync(CountedBase.metadata.create_all)
    factory = async_sessionmaker(async_engine18)
    install(factory)
    ticks: list[float] = []

    async def heartbeat() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    beating = asyncio.create_task(heartbeat())
    counting.seconds = 2.0
    async with factory() as session:
        session.add(Counted(title="slow"))
        await session.commit()
        found = (await session.scalars(nearest(Counted.first, "slow, too").limit(1))).one()
        assert found.title == "slow"
        await session.execute(insert(Counted), [{"title": "slow statement"}])
        await session.commit()
    beating.cancel()
    assert len(counting.calls) == 3
    # Six seconds of an encoder: a loop that waited for it would show gaps of two.
    assert len(ticks) > 100
    assert max(np.diff(ticks)) < counting.seconds


async def test_an_update_leaves_loaded_vectors_loaded(async_engine18: AsyncEngine) -> None:
    """For an async session cannot load them again by itself."""
    async with async_engine18.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    make = async_sessionmaker(async_engine18)
    install(make)
    async with make() as session:
        session.add(Article(id=1, title="old"))
        await session.commit()
        article = await session.get_one(Article, 1, options=[undefer(Article.embedding)])
        await session.execute(update(Article).values(title="new"))
        assert same(article.embedding, HASHING.encode_documents(["new"])[0])


async def test_async_targets(async_engine18: AsyncEngine) -> None:
    async with async_engine18.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    plain, factory = async_sessionmaker(async_engine18), async_sessionmaker(async_engine18)
    scoped = async_scoped_session(async_sessionmaker(async_engine18), scopefunc=asyncio.current_task)
    install(factory)
    install(scoped)
    one = AsyncSession(async_engine18)
    install(one)
    makers: list[tuple[Any, bool]] = [(plain, False), (factory, True), (scoped, True), (lambda: one, True)]
    for make, embedded in makers:
        async with make() as session:
            article = Article(title="async")
            session.add(article)
            await session.commit()
            await session.refresh(article, ["embedding"])
            assert (article.embedding is not None) == embedded
    uninstall(factory)
    async with factory() as session:
        article = Article(title="async")
        session.add(article)
        await session.commit()
        await session.refresh(article, ["embedding"])
        assert article.embedding is None


# --- entities -------------------------------------------------------------------------------------------------


def test_entities_pickle_copy_and_compare(session: Session) -> None:
    article = Article(title="pickled")
    session.add(article)
    session.commit()
    loaded = session.scalars(select(Article).options(undefer(Article.embedding))).one()
    assert loaded.embedding is not None
    for copied in (pickle.loads(pickle.dumps(loaded)), copy.copy(loaded)):
        assert same(copied.embedding, loaded.embedding)
    deep = copy.deepcopy(loaded.embedding)
    assert same(deep, loaded.embedding)
    loaded.embedding = deep  # equal, so nothing is written
    assert not session.is_modified(loaded)
    assert session.merge(pickle.loads(pickle.dumps(loaded))) is loaded


# --- any sequence of operations -------------------------------------------------------------------------------

texts = st.sampled_from(["", " ", "planes", "boats land", "bread rises", "the quick brown fox"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), texts, st.none() | texts),
        st.tuples(st.just("change"), st.integers(0, 9), texts),
        st.tuples(st.just("blank"), st.integers(0, 9), st.none()),
        st.tuples(st.just("delete"), st.integers(0, 9), st.none()),
        st.tuples(st.just("insert"), texts, texts),
        st.tuples(st.just("update"), texts, st.none()),
        st.tuples(st.just("replace"), texts, texts),
        st.tuples(
            st.sampled_from(["flush", "commit", "rollback", "begin nested", "end nested", "undo nested"]),
            st.none(),
            st.none(),
        ),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations)
def test_any_sequence_of_operations(
    make_session: sessionmaker[Session], operations: list[tuple[str, Any, Any]]
) -> None:
    with make_session() as session:
        nested: list[Any] = []
        for operation, first, second in operations:
            rows = session.scalars(select(Article).order_by(Article.id)).all() if isinstance(first, int) else []
            row = rows[first % len(rows)] if rows else None
            match operation:
                case "add":
                    session.add(Article(title=first, body=second))
                case "change" if row is not None:
                    row.title = second
                case "blank" if row is not None:
                    row.title, row.body = "", None
                case "delete" if row is not None:
                    session.delete(row)
                case "insert":
                    session.execute(
                        insert(Article), [{"title": first, "body": second}, {"title": second, "body": first}]
                    )
                case "update":
                    session.execute(update(Article).where(Article.title == first).values(body="bulk"))
                case "replace":
                    session.execute(update(Article).where(Article.title == first).values(title=second, body=None))
                case "flush":
                    session.flush()
                case "commit":
                    session.commit()
                    nested.clear()
                case "rollback":
                    session.rollback()
                    nested.clear()
                case "begin nested":
                    nested.append(session.begin_nested())
                case "end nested" if nested:
                    nested.pop().commit()
                case "undo nested" if nested:
                    nested.pop().rollback()
        session.commit()
        assert violations(session, [Article]) == []


def test_bound_later_is_no_source(session: Session) -> None:
    """A bindparam in values() is filled from the rows, and embedded as such."""
    session.execute(insert(Article).values(title=bindparam("title")), [{"title": "bound"}])
    session.commit()
