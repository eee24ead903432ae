"""Filters under ``nearest``: every row that there is, the right ones, by the plan that pays, however it is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import (
    Connection,
    Engine,
    ForeignKeyConstraint,
    Select,
    bindparam,
    create_engine,
    event,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    Mapped,
    Session,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    selectinload,
    with_loader_criteria,
)

from embeddb import Vector, embedding_column, nearest
from embeddb.query.plan import explain
from tests.query.clusters import (
    CLUSTER,
    CLUSTERS,
    HASHING,
    QUERIES,
    QUERY_CLUSTER,
    ROWS,
    VECTORS,
    Base,
    Owner,
    Row,
    fill,
    nearest_ids,
)
from tests.query.clusters import through_index as through_the_index

NUMBER = np.arange(ROWS)
EVEN = NUMBER % 2 == 0

Filter = Callable[[Select[Any]], Select[Any]]

#: Filters of every kind, each with the rows that it leaves.
FILTERS: dict[str, tuple[Filter, Any]] = {
    "all": (lambda s: s.where(Row.tenth >= 0), NUMBER >= 0),
    "half": (lambda s: s.where(Row.tenth < 5), NUMBER % 10 < 5),
    "tenth": (lambda s: s.where(Row.tenth == 3), NUMBER % 10 == 3),
    "hundredth": (lambda s: s.where(Row.hundredth == 33), NUMBER % 100 == 33),
    "thousandth": (lambda s: s.where(Row.thousandth == 333), NUMBER % 1000 == 333),
    "none": (lambda s: s.where(Row.tenth == 77), NUMBER < 0),
    "json": (lambda s: s.where(Row.facts["colour"].astext == "red"), NUMBER % 10 == 3),
    "json contains": (lambda s: s.where(Row.facts.contains({"colour": "red"})), NUMBER % 10 == 3),
    "array": (
        lambda s: s.where(Row.numbers.contains([3, 5])),
        np.isin(NUMBER % 7, (3, 5)) & (NUMBER % 7 + NUMBER % 11 == 8),
    ),
    "full text": (lambda s: s.where(Row.words.op("@@")(func.to_tsquery("simple", "even & 42"))), NUMBER % 100 == 42),
    "join": (lambda s: s.join(Row.owner).where(Owner.country == "nz"), NUMBER % 20 == 0),
    "outer join": (lambda s: s.outerjoin(Row.owner).where(Owner.id < 7), NUMBER % 200 < 7),
    "exists": (
        lambda s: s.where(exists().where(Owner.id == Row.owner_id, Owner.country == "nz")),
        NUMBER % 20 == 0,
    ),
    "in a select": (
        lambda s: s.where(Row.owner_id.in_(select(Owner.id).where(Owner.country == "nz"))),
        NUMBER % 20 == 0,
    ),
    "relationship": (lambda s: s.where(Row.owner.has(country="nz")), NUMBER % 20 == 0),
    "criteria": (lambda s: s.where(Row.id > 5).options(with_loader_criteria(Row, Row.tenth == 3)), NUMBER % 10 == 3),
    "two": (lambda s: s.where(Row.tenth == 3).where(Row.hundredth.in_([3, 33])), np.isin(NUMBER % 100, (3, 33))),
}
FILTERS["criteria"] = (FILTERS["criteria"][0], (NUMBER % 10 == 3) & (NUMBER > 5))


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    with module_engine.begin() as connection:
        fill(connection, Row)
    return module_engine


@pytest.fixture(params=["planner", "index"])
def session(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(engine) as session:
        if request.param == "index":
            through_the_index(session)
        yield session


def recall(session: Session, build: Callable[[Any], Select[Any]], among: Any, k: int = 10) -> float:
    """Of the rows that are to be found, how many are; every answer must be full, in order, and within the filter."""
    hits = wanted = 0
    for query in QUERIES:
        rows = session.execute(build(query)).all()
        found = [row[0].id for row in rows]
        expected = nearest_ids(query, k, among)
        assert len(found) == len(set(found)) == len(expected)
        assert among[found].all()
        assert [row.distance for row in rows] == sorted(row.distance for row in rows)
        hits += len(set(found) & set(expected))
        wanted += len(expected)
    return hits / wanted if wanted else 1.0


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_filled_with_the_nearest(session: Session, name: str) -> None:
    filtered, among = FILTERS[name]
    assert recall(session, lambda q: filtered(nearest(Row.embedding, q, distance=True)).limit(10), among) >= 0.99


@pytest.mark.parametrize("width", [CLUSTERS // 10, 1])
@pytest.mark.parametrize("away", [0, CLUSTERS // 2], ids=["near", "far"])
def test_filters_that_go_with_the_vectors_or_against_them(session: Session, width: int, away: int) -> None:
    for query, cluster in zip(QUERIES, QUERY_CLUSTER, strict=True):
        first = (int(cluster) + away) % (CLUSTERS - width + 1)
        among = (first <= CLUSTER) & (first + width > CLUSTER)
        statement = nearest(Row.embedding, query).where(Row.cluster.between(first, first + width - 1)).limit(10)
        found = {row.id for row in session.scalars(statement)}
        assert len(found & set(nearest_ids(query, among=among))) >= 9


def test_the_planner_chooses_by_how_many_rows_the_filter_leaves(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        wide = explain(session, nearest(Row.embedding, QUERIES[0]).where(Row.tenth >= 0).limit(10))
        assert "ix_row_embedding_hnsw" in wide.indexes
        narrow = explain(session, nearest(Row.embedding, QUERIES[0]).where(Row.thousandth == 333).limit(10))
        assert "ix_row_embedding_hnsw" not in narrow.indexes
        assert "ix_row_thousandth" in narrow.indexes


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan", "auto"])
def test_prepared_statements(engine: Engine, mode: str) -> None:
    prepared = create_engine(engine.url, connect_args={"prepare_threshold": 0})
    with Session(prepared) as session:
        session.execute(text(f"SET plan_cache_mode = {mode}"))
        for tenth, low in ((3, 0), (3, ROWS - 100), (3, ROWS - 4), (3, ROWS)):
            for query in QUERIES[:8]:
                statement = nearest(Row.embedding, query).where(Row.tenth == tenth, Row.id >= low).limit(10)
                found = [row.id for row in session.scalars(statement)]
                assert found == nearest_ids(query, among=(tenth == NUMBER % 10) & (low <= NUMBER)) or low == 0
                assert len(found) == min(10, len(range(low + (3 - low) % 10, ROWS, 10)))
    prepared.dispose()


def test_postgres_keeps_to_plans_with_values(engine: Engine) -> None:
    """A range is taken for 1 of 200 rows by a generic plan, which would be cheaper only in the estimate."""
    prepared = create_engine(engine.url, connect_args={"prepare_threshold": 0})
    with Session(prepared) as session:
        for number in range(12):
            session.scalars(nearest(Row.embedding, QUERIES[number]).where(Row.id.between(0, ROWS)).limit(10)).all()
        plans = session.execute(
            text(
                "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
                " WHERE statement LIKE 'SELECT row.%embeddb_scan%'"
            )
        )
        assert plans.one() == (0, 12)
    prepared.dispose()


def test_one_statement_in_one_compilation(engine: Engine) -> None:
    sent: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if "FROM row" in statement:  # a session also asks, now and then, whether the encoder was changed
            sent.append(statement)

    with Session(engine) as session:
        event.listen(engine, "before_cursor_execute", note)
        for number, query in enumerate(QUERIES):
            statement = (
                nearest(Row.embedding, query).where(Row.tenth == number % 10).offset(number % 3).limit(5 + number)
            )
            found = [row.id for row in session.scalars(statement)]
            expected = nearest_ids(query, 5 + number + number % 3, number % 10 == NUMBER % 10)[number % 3 :]
            assert len(set(found) & set(expected)) >= len(expected) - 1
        event.remove(engine, "before_cursor_execute", note)
    assert len(sent) == len(QUERIES)
    assert len(set(sent)) == 1


def test_as_part_of_larger_statements(session: Session) -> None:
    query, among = QUERIES[4], NUMBER % 10 == 3
    expected = nearest_ids(query, 6, among)
    other = aliased(Row, name="other")
    assert [r.id for r in session.scalars(nearest(other.embedding, query).where(other.tenth == 3).limit(6))] == expected
    statement = nearest(Row.embedding, query).where(Row.tenth == 3).limit(6)
    for option in (joinedload(Row.owner), selectinload(Row.owner)):
        assert [row.owner.id for row in session.scalars(statement.options(option))] == [n % 200 for n in expected]
    eager = nearest(Row.embedding, query).join(Row.owner).where(Row.tenth == 3).options(contains_eager(Row.owner))
    assert [row.id for row in session.scalars(eager.limit(6))] == expected
    inner = nearest(Row.embedding, query, distance=True).where(Row.tenth == 3).limit(6).subquery()
    assert session.execute(select(func.count(), func.max(inner.c.distance)).select_from(inner)).one()[0] == 6
    cte = nearest(Row.embedding, query).where(Row.tenth == 3).limit(6).cte()
    assert set(session.scalars(select(cte.c.id))) == set(expected)
    both = nearest(Row.embedding, query).with_only_columns(Row.id).where(Row.tenth == 3).limit(6)
    twice = both.union_all(nearest(Row.embedding, QUERIES[5]).with_only_columns(Row.id).where(Row.tenth == 4).limit(6))
    assert len(session.execute(twice).all()) == 12
    locked = nearest(Row.embedding, query).where(Row.tenth == 3).limit(6).with_for_update()
    assert [row.id for row in session.scalars(locked)] == expected
    table = Row.__table__
    core = nearest(table.c.embedding, bindparam("q")).where(table.c.tenth == bindparam("t")).limit(6)
    assert [row.id for row in session.connection().execute(core, {"q": query, "t": 3})] == expected
    ties = nearest(Row.embedding, query).where(Row.tenth == 3).order_by(Row.id).limit(6)
    assert [row.id for row in session.scalars(ties)] == expected
    labelled = nearest(Row.embedding, query, distance=True, score=True).where(Row.tenth == 3).limit(6)
    assert all(np.isclose(row.distance, 1 - row.score) for row in session.execute(labelled))


def test_what_other_clauses_see_is_not_cut_off(session: Session) -> None:
    """Where more than the first rows matters, there are no candidates."""
    query, among = QUERIES[6], NUMBER % 10 == 3
    counted = nearest(Row.embedding, query).add_columns(func.count().over()).where(Row.tenth == 3).limit(5)
    assert {row[1] for row in session.execute(counted)} == {int(among.sum())}
    other_order = nearest(Row.embedding, query).order_by(None).order_by(Row.id.desc()).where(Row.tenth == 3).limit(3)
    assert [row.id for row in session.scalars(other_order)] == [ROWS - 7, ROWS - 17, ROWS - 27]
    numbered = nearest(Row.embedding, query)
    numbered = numbered.add_columns(func.row_number().over(order_by=Row.embedding.cosine_distance(query)))
    assert [row[1] for row in session.execute(numbered.where(Row.tenth == 3).limit(3))] == [1, 2, 3]
    everything = nearest(Row.embedding, query).where(Row.tenth == 3)
    assert len(session.scalars(everything).all()) == among.sum()
    joined = nearest(Row.embedding, query).join(Owner, Owner.id < 3).where(Row.tenth == 3).limit(9)
    assert [row.id for row in session.scalars(joined)] == np.repeat(nearest_ids(query, 3, among), 3).tolist()


def test_more_rows_than_ef_search_holds_well(session: Session) -> None:
    """In strict order a scan drops what comes late, and beyond half of ef_search's most that is one row in twenty."""
    through_the_index(session)
    few, many = nearest(Row.embedding, QUERIES[3]).limit(500), nearest(Row.embedding, QUERIES[3]).limit(900)
    assert ["embeddb_scan" in str(one.compile(session.get_bind())) for one in (few, many)] == [False, True]
    found = {row.id for row in session.scalars(many)}
    assert len(found & set(nearest_ids(QUERIES[3], 900))) >= 0.99 * 900


def test_what_is_said_of_filters_makes_another_statement(engine: Engine) -> None:
    with Session(engine) as session:
        sent: list[str] = []
        event.listen(session.connection(), "before_cursor_execute", lambda *args: sent.append(args[2]))
        for said in (None, False, True):  # the second must not find the first among compiled statements
            session.execute(nearest(Row.embedding, QUERIES[0], filtered=said).where(Row.tenth < 5).limit(5)).all()
        assert ["embeddb_scan" in sql for sql in sent if "FROM row" in sql] == [True, False, True]


def test_row_level_security_and_partitions(engine: Engine) -> None:
    with engine.connect() as connection:
        for command in (
            "CREATE ROLE tenant",
            "GRANT SELECT ON row TO tenant",
            "ALTER TABLE row ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON row USING (thousandth = current_setting('app.tenant')::int)",
            "SET LOCAL app.tenant = '333'",
            "SET LOCAL ROLE tenant",
        ):
            connection.execute(text(command))
        with Session(connection) as session:
            for filtered in (None, True):
                found = [r.id for r in session.scalars(nearest(Row.embedding, QUERIES[0], filtered=filtered).limit(20))]
                assert found == nearest_ids(QUERIES[0], 20, NUMBER % 1000 == 333)
        connection.rollback()
        for command in (
            "CREATE TABLE parts (LIKE row) PARTITION BY LIST (tenth)",
            "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0, 1, 2, 3, 4)",
            "CREATE TABLE parts_5 PARTITION OF parts DEFAULT",
            "INSERT INTO parts SELECT * FROM row",
            "ALTER TABLE row RENAME TO row_whole",
            "ALTER INDEX ix_row_embedding_hnsw RENAME TO ix_row_whole",
            "ALTER TABLE parts RENAME TO row",
            "CREATE INDEX ix_row_embedding_hnsw ON row USING hnsw (embedding vector_cosine_ops)",
            "ANALYZE row",
        ):
            connection.execute(text(command))
        with Session(connection) as session:
            through_the_index(session)

            def half(q: Any) -> Select[Any]:
                return nearest(Row.embedding, q, distance=True).where(Row.hundredth < 50).limit(10)

            assert recall(session, half, NUMBER % 100 < 50) >= 0.99
            assert "_embedding_idx (hnsw, vector_cosine_ops) serves it" in explain(session, half(QUERIES[0])).words
        connection.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(engine: Engine, driver: str) -> None:
    async_engine = create_async_engine(engine.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(async_engine)() as session:
        for query in QUERIES[:7]:  # the driver prepares a statement that comes again
            found = await session.scalars(nearest(Row.embedding, query).join(Row.owner).where(Owner.id < 20).limit(4))
            assert [row.id for row in found] == nearest_ids(query, 4, NUMBER % 200 < 20)
    await async_engine.dispose()


class Part(Base):
    """A key of two columns, one of an odd name, in a schema of its own."""

    __tablename__ = "part%s"
    __table_args__: Any = {"schema": "odd 'schema'"}
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column("the right", primary_key=True)
    kind: Mapped[str] = mapped_column(default="part")
    vector: Mapped[Vector | None] = embedding_column("kind", encoder=HASHING, storage="halfvec", name="v")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "part"}


class Special(Part):
    """What is told of some parts, in a table of its own."""

    __tablename__ = "special"
    __table_args__ = (ForeignKeyConstraint(["left", "right"], [Part.left, Part.right]),)
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "special"}


def test_composite_keys_schemas_and_inheritance(module_engine: Engine) -> None:
    tables = [Base.metadata.tables["odd 'schema'.part%s"], Base.metadata.tables["special"]]
    with Session(module_engine) as session:
        session.execute(text("CREATE SCHEMA \"odd 'schema'\""))
        Base.metadata.create_all(session.connection(), tables=tables)
        session.add_all(
            Special(left=n // 10, right=str(n % 10), price=n % 4, vector=vector)
            for n, vector in enumerate(VECTORS[:800])
        )
        session.flush()
        through_the_index(session)
        among = (NUMBER < 800) & (NUMBER % 4 == 1)
        expected = nearest_ids(QUERIES[0], 5, among)
        statement = nearest(Special.vector, QUERIES[0]).where(Special.price == 1).limit(5)
        assert "_v_hnsw" in " ".join(explain(session, statement).indexes)
        assert [10 * row.left + int(row.right) for row in session.scalars(statement)] == expected
        joined = nearest(Part.vector, QUERIES[0]).where(Part.left < 50).limit(5)
        found = [10 * row.left + int(row.right) for row in session.scalars(joined)]
        assert found == nearest_ids(QUERIES[0], 5, NUMBER < 500)
