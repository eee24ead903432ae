"""Plans in words, as assertions and as lines of a log."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, event, func, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.schema import CreateSchema

from embeddb import nearest
from embeddb.errors import QueryError
from embeddb.query.for_each import for_each
from embeddb.query.knn_join import knn_join
from embeddb.query.log import log_plans, unlog_plans
from embeddb.query.pages import page
from embeddb.query.plan import assert_uses_index, explain
from embeddb.query.similar_to import similar_to
from embeddb.query.within import within
from tests.query.items import VECTORS, Half, Item, Pair


@pytest.fixture
def usual(items_engine: Engine) -> Iterator[Session]:
    """A session whose planner is as it is."""
    with Session(items_engine) as session:
        yield session


def test_an_index_in_words(session: Session) -> None:
    plan = explain(session, nearest(Item.embedding, "row 1").limit(10))
    assert plan.vector_indexes == ("ix_item_embedding_hnsw",)
    assert plan.settings["hnsw.ef_search"] == "64"
    assert plan.settings["hnsw.iterative_scan"] == "strict_order"
    assert plan.words.startswith(
        "item.embedding: the index ix_item_embedding_hnsw (hnsw, vector_cosine_ops) serves it, ef_search 64, "
        "iterative scan strict_order"
    )
    assert "ef_search 400" in explain(session, nearest(Item.embedding, "row 1").limit(200)).words
    given_later = nearest(Item.embedding, bindparam("q")).limit(5)
    assert explain(session, given_later, {"q": VECTORS[0]}).vector_indexes == ("ix_item_embedding_hnsw",)


@pytest.mark.parametrize(
    "statement",
    [
        nearest(Item.embedding, "row 1").where(Item.cat > 3).limit(5),
        within(Item.embedding, "row 1", distance=0.4, exact=False),
        similar_to(Item.embedding, [1, 2]).limit(5),
        for_each(Item.embedding, ["row 1", "row 2"], k=5),
        page(Item.embedding, "row 1", after=(0.1, 5)),
        select(Item).order_by(Item.embedding.cosine_distance("row 1")).limit(5),
    ],
    ids=["nearest", "within", "similar_to", "for_each", "page", "by hand"],
)
def test_every_helper_can_be_served(usual: Session, statement: Any) -> None:
    plan = assert_uses_index(usual, statement, "ix_item_embedding_hnsw")
    assert "hnsw.ef_search" in plan.settings
    assert usual.scalar(text("SELECT current_setting('enable_seqscan')")) == "on"


def test_two_embeddings_have_two_sentences(session: Session) -> None:
    plan = explain(session, knn_join(Pair.vector, Half.embedding, k=2))
    assert [reason.embedding for reason in plan.reasons] == ["half.embedding", "pair.v"]
    assert plan.reasons[0].index == "ix_half_embedding_hnsw"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (nearest(Item.embedding, "x"), "without a LIMIT all rows are wanted. Add limit"),
        (nearest(Item.embedding, "x", exact=True).limit(5), "the statement asks for that, as exact=True"),
        (within(Item.embedding, "x", distance=0.3), "the statement asks for that"),
        (nearest(Item.embedding, "x").limit(5), "about 3,000 rows, and reading so few takes no index"),
    ],
)
def test_exact_and_why(usual: Session, statement: Any, words: str) -> None:
    usual.execute(text("SET LOCAL enable_indexscan = off"))
    plan = explain(usual, statement)
    assert plan.vector_indexes == ()
    assert words in plan.words
    assert "item.embedding: exact" in plan.words
    with pytest.raises(AssertionError, match="a vector index does not serve") as caught:
        assert_uses_index(usual, statement, planner=True)
    assert words in str(caught.value)
    assert "Seq Scan on item" in str(caught.value)


def test_an_index_that_is_missing_invalid_or_another(usual: Session) -> None:
    statement = nearest(Item.embedding, "x").limit(5)
    with pytest.raises(AssertionError, match="the index ix_other does not serve"):
        assert_uses_index(usual, statement, "ix_other")
    usual.execute(text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_item_embedding_hnsw'::regclass"))
    assert "the index ix_item_embedding_hnsw is invalid" in explain(usual, statement).words
    usual.execute(text("DROP INDEX ix_item_embedding_hnsw"))
    assert "no vector index on item. Migrate" in explain(usual, statement).words
    usual.execute(text("CREATE INDEX other ON item USING ivfflat (embedding vector_l2_ops)"))
    with pytest.raises(AssertionError, match=r"the metric is cosine, and there is only other \(vector_l2_ops\)"):
        assert_uses_index(usual, statement)
    usual.rollback()


def test_an_engine_and_a_registry_of_sessions(items_engine: Engine) -> None:
    statement = nearest(Item.embedding, "row 1").limit(10)
    sessions = scoped_session(sessionmaker(items_engine))
    assert assert_uses_index(items_engine, statement).words == assert_uses_index(sessions, statement).words
    sessions.remove()


def test_a_statement_that_searches_nothing(usual: Session) -> None:
    assert explain(usual, select(func.count()).select_from(Item)).words.startswith("no embedding")


@pytest.fixture
def logged(items_engine: Engine) -> Iterator[Engine]:
    log_plans(items_engine)
    log_plans(items_engine)  # once is enough
    yield items_engine
    unlog_plans(items_engine)
    unlog_plans(items_engine)


def test_a_line_for_each_search(logged: Engine, session: Session, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "embeddb.query"):
        for _ in range(7):
            session.scalars(nearest(Item.embedding, "row 1").limit(10)).all()
        session.scalars(select(Item).limit(1)).all()
        session.execute(within(Item.embedding, "row 1", score=0.5)).all()
    lines = [record.getMessage() for record in caplog.records if record.name == "embeddb.query"]
    assert len(lines) == 8
    assert lines[0] == lines[6]
    assert "ix_item_embedding_hnsw" in lines[0]
    assert "ef_search 64, iterative scan strict_order" in lines[0]
    assert "exact" in lines[7]


def test_a_streamed_search_and_one_without_a_transaction(logged: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "embeddb.query"), Session(logged) as session:
        streamed = within(Item.embedding, "row 1", distance=2.0).execution_options(yield_per=500)
        assert len(session.execute(streamed).all()) == 3000
    with caplog.at_level(logging.DEBUG, "embeddb.query"), logged.connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        assert len(autocommit.execute(nearest(Item.embedding, "row 1").limit(3)).all()) == 3
        assert len(autocommit.execute(nearest(Item.embedding, "row 2").limit(3)).all()) == 3
    lines = [record.getMessage() for record in caplog.records if record.name == "embeddb.query"]
    assert len(lines) == 3
    assert lines[0].startswith("item.embedding: exact")
    assert "item.embedding: " in lines[2]


def test_no_log_costs_no_statement(logged: Engine, session: Session) -> None:
    sent: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if "item" in statement:  # a session also asks, now and then, whether the encoder was changed
            sent.append(statement)

    event.listen(logged, "before_cursor_execute", note)
    session.scalars(nearest(Item.embedding, "row 1").limit(10)).all()
    event.remove(logged, "before_cursor_execute", note)
    assert len(sent) == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(items_engine: Engine, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_async_engine(items_engine.url.set(drivername=f"postgresql+{driver}"))
    log_plans(engine)
    async with async_sessionmaker(engine)() as session:
        statement = nearest(Item.embedding, "row 1").limit(10)
        plan = await session.run_sync(assert_uses_index, statement)
        assert plan.settings["hnsw.ef_search"].isdigit()
        with pytest.raises(QueryError, match=r"not AsyncSession: .* await session\.run_sync\(explain, …\)"):
            explain(session, statement)  # type: ignore[arg-type]
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        with caplog.at_level(logging.DEBUG, "embeddb.query"):
            await session.scalars(statement)
    unlog_plans(engine)
    await engine.dispose()
    assert "the index ix_item_embedding_hnsw" in caplog.text


def test_the_fixture(usual: Session, assert_uses_index: Callable[..., Any]) -> None:
    assert assert_uses_index(usual, nearest(Item.embedding, "row 1").limit(10)).vector_indexes


def test_the_plug_in_is_cheap() -> None:
    script = "import sys, embeddb.testing; print([m for m in ('sqlalchemy', 'numpy', 'psycopg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_chooses_rows_is_named_not_what_looks_them_up(usual: Session) -> None:
    search = nearest(Item.embedding, "x").limit(5)
    assert "exact, its rows are read all of them" in explain(usual, search.where(Item.title == "row 7")).words
    assert "exact, its rows are read by the index ix_item_cat" in explain(usual, search.where(Item.cat == 3)).words


def test_an_exact_plan_of_a_large_table_is_not_laid_to_filters(usual: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embeddb.query.reasons.FEW", 1000)
    usual.execute(text("SET LOCAL enable_indexscan = off"))
    search = nearest(Item.embedding, "x")
    assert "so many are found faster by reading all" in explain(usual, search.limit(2000)).words
    assert "the filters to leave so few" in explain(usual, search.limit(9).where(Item.title > "row 7")).words


def test_a_schema_that_is_put_in_as_it_runs(items_engine: Engine) -> None:
    """As where each tenant has one."""
    engine = items_engine.execution_options(schema_translate_map={None: "tenant"})
    with engine.connect() as connection:
        connection.execute(CreateSchema("tenant"))
        Item.metadata.tables["item"].create(connection)
        search = nearest(Item.embedding, "row 1").limit(10)
        plan = assert_uses_index(connection, search)
        assert "FROM tenant.item" in plan.sql
        assert plan.words.startswith("item.embedding: the index ix_item_embedding_hnsw")
        connection.execute(text("DROP INDEX tenant.ix_item_embedding_hnsw"))
        assert "no vector index on item" in explain(connection, search).words
        connection.rollback()
