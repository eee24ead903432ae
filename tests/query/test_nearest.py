"""``nearest`` and the distances: the SQL, the round trips, the plan, and what comes back against exact search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, Select, bindparam, create_engine, event, exists, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, sessionmaker

from embeddb import HNSW, IVFFlat, Vector, bulk_load, embedding_column, for_each, install, nearest
from embeddb.encoders import Hashing
from embeddb.errors import MetricMismatch, NoEmbedding, QueryError, VectorError
from embeddb.orm import following

DIM = 24
ROWS = 3000
HASHING = Hashing(dim=DIM)


DIALECT: Any = create_engine("postgresql+psycopg://").dialect


class Base(DeclarativeBase):
    pass


def model(name: str, **options: Any) -> type[Any]:
    attributes = {
        "__tablename__": name,
        "id": mapped_column(primary_key=True),
        "cat": mapped_column(index=True),
        "title": mapped_column(),
        "embedding": embedding_column("title", encoder=HASHING, **options),
        "__annotations__": {"id": Mapped[int], "cat": Mapped[int], "title": Mapped[str | None]},
    }
    return type(name.title().replace("_", ""), (Base,), attributes)


MODELS = {
    f"{metric}_{storage}_{kind}": model(f"{metric}_{storage}_{kind}", metric=metric, storage=storage, index=index)
    for metric in ("cosine", "l2", "inner_product")
    for storage, kind, index in (
        ("vector", "hnsw", HNSW()),
        ("halfvec", "hnsw", HNSW()),
        ("vector", "half_index", HNSW(cast="halfvec")),
        ("vector", "ivfflat", IVFFlat(lists=10)),
    )
}
Plain = model("plain", index=None)
Item: Any = MODELS["cosine_vector_hnsw"]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(30, DIM))
    return (centres[rng.integers(30, size=ROWS)] + 0.4 * rng.normal(size=(ROWS, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def engine(module_engine: Engine, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> Engine:
    Base.metadata.create_all(module_engine)
    with module_engine.begin() as connection:
        for table in (*MODELS.values(), Plain):
            for index in table.__table__.indexes:
                index.drop(connection)
            bulk_load(
                connection,
                table,
                {
                    "id": np.arange(ROWS),
                    "cat": np.arange(ROWS) % 500,
                    "title": [f"row {n}" for n in range(ROWS)],
                    "embedding": vectors,
                },
            )
            for index in table.__table__.indexes:
                index.create(connection)
        connection.execute(text("ANALYZE"))
    return module_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    factory = sessionmaker(engine)
    install(factory)
    with factory() as session:
        yield session


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def plan(session: Session, statement: Select[Any]) -> str:
    compiled = statement.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
    rows = session.connection().exec_driver_sql("EXPLAIN " + str(compiled), _processed(compiled))
    return "\n".join(row[0] for row in rows)


def _processed(compiled: Any) -> dict[str, Any]:
    processors = compiled._bind_processors
    return {name: processors[name](value) if name in processors else value for name, value in compiled.params.items()}


def distances(metric: str, vectors: Any, query: Any) -> Any:
    if metric == "cosine":
        return 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    return np.linalg.norm(vectors - query, axis=1) if metric == "l2" else -(vectors @ query)


# --- what comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_index_scan_recall_and_score(session: Session, vectors: Any, name: str) -> None:
    table = MODELS[name]
    metric = table.embedding.type.settings.metric
    statement = nearest(table.embedding, bindparam("q"), distance=True, score=True).limit(10)
    session.execute(text("SET LOCAL enable_seqscan = off"))
    assert f"Index Scan using ix_{name}_embedding" in plan(session, nearest(table.embedding, vectors[0]).limit(10))
    hits = 0
    for query in vectors[::150]:
        rows = session.execute(statement, {"q": query}).all()
        exact = distances(metric.name, vectors, query)
        expected = np.argsort(exact, kind="stable")[:10]
        hits += len({row[0].id for row in rows} & set(expected.tolist()))
        found = np.array([row.distance for row in rows])
        assert np.allclose(found, exact[[row[0].id for row in rows]], rtol=2e-3, atol=2e-3)
        assert np.allclose([row.score for row in rows], metric.score(found))
        if "ivfflat" not in name:
            # An index on halves orders by distances that are rounded to halves.
            assert (np.diff(found) >= (-1e-3 if "half" in name else 0)).all()
    assert hits / (10 * len(vectors[::150])) >= 0.98


@pytest.mark.parametrize("limit", [1, 10, 500, 2500])
def test_a_limit_is_filled(session: Session, vectors: Any, limit: int) -> None:
    session.execute(text("SET LOCAL enable_seqscan = off"))
    found = session.scalars(nearest(Item.embedding, vectors[3]).limit(limit)).all()
    assert len(found) == limit
    expected = np.argsort(distances("cosine", vectors, vectors[3]))[:limit]
    assert len({row.id for row in found} & set(expected.tolist())) >= 0.98 * limit


def test_a_filter_is_filled(session: Session, vectors: Any) -> None:
    # Six rows of 3,000: the index must go on scanning until it has them all, though the planner would know better.
    session.execute(text("SET LOCAL enable_seqscan = off"))
    session.execute(text("SET LOCAL enable_bitmapscan = off"))
    session.execute(text("SET LOCAL enable_sort = off"))
    statement = nearest(Item.embedding, vectors[3]).where(Item.cat == 77).limit(6)
    assert "ix_cosine_vector_hnsw_embedding_hnsw" in plan(session, statement)
    assert len(session.scalars(statement).all()) == 6
    offset = nearest(Item.embedding, vectors[3]).where(Item.cat == 77).offset(4).limit(10)
    assert len(session.scalars(offset).all()) == 2


def test_exact(session: Session, vectors: Any) -> None:
    session.execute(text("SET LOCAL enable_seqscan = off"))
    statement = nearest(Item.embedding, vectors[5], exact=True).limit(40)
    assert "Index Scan" not in plan(session, statement)
    assert "set_config" not in plan(session, statement)
    expected = np.argsort(distances("cosine", vectors, vectors[5]), kind="stable")[:40]
    assert [row.id for row in session.scalars(statement)] == expected.tolist()


# --- the SQL and the round trips ------------------------------------------------------------------------------


def test_sql() -> None:
    sql = str(nearest(Item.embedding, "text").offset(2).limit(5).compile(dialect=DIALECT))
    assert " ".join(sql.split()) == (
        "SELECT cosine_vector_hnsw.id, cosine_vector_hnsw.cat, cosine_vector_hnsw.title FROM cosine_vector_hnsw "
        "WHERE cosine_vector_hnsw.embedding IS NOT NULL "
        "ORDER BY cosine_vector_hnsw.embedding <=> (SELECT %(query_1)s::vector AS anon_1 "
        "WHERE set_config('hnsw.ef_search', CAST(least(1000, coalesce("
        "(SELECT CAST(ceil(CAST(SUBSTRING(pg_catalog.pg_description.description "
        "FROM '^embeddb recall@.* default=([0-9]+)') AS FLOAT) * "
        "greatest(1, (%(param_1)s::INTEGER + %(param_2)s::INTEGER) / "
        "CAST(SUBSTRING(pg_catalog.pg_description.description FROM '^embeddb recall@([0-9]+)') AS FLOAT))) AS INTEGER) "
        "AS ceil_1 FROM pg_catalog.pg_description "
        "WHERE pg_catalog.pg_description.objoid = to_regclass('\"ix_cosine_vector_hnsw_embedding_hnsw\"') "
        "AND pg_catalog.pg_description.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass "
        "AND pg_catalog.pg_description.objsubid = 0), "
        "greatest(64, 2 * (%(param_1)s::INTEGER + %(param_2)s::INTEGER)))) AS TEXT), "
        "true) IS NOT NULL AND set_config('hnsw.iterative_scan', 'strict_order', true) IS NOT NULL "
        "AND set_config('hnsw.max_scan_tuples', '2147483647', true) IS NOT NULL "
        "AND set_config('hnsw.scan_mem_multiplier', '100', true) IS NOT NULL) "
        "LIMIT %(param_1)s::INTEGER OFFSET %(param_2)s::INTEGER"
    )


def test_one_plan_serves_all_searches_without_filters(engine: Engine, vectors: Any) -> None:
    """With LIMIT as a parameter, Postgres would plan every execution: unknown, it is taken for a tenth of the rows."""
    prepared = create_engine(engine.url, connect_args={"prepare_threshold": 0})
    with Session(prepared) as session:
        for number, limit in enumerate((3, 4) * 10):
            found = session.scalars(nearest(Item.embedding, vectors[number]).limit(limit)).all()
            assert len(found) == limit
        plans = session.execute(
            text(
                "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%set_config(%'"
                " AND statement NOT LIKE '%pg_prepared_statements%'"
            )
        )
        assert plans.all() == [(5, 5), (5, 5)]
    prepared.dispose()

    without_limit = str(nearest(Item.embedding, "text").compile(dialect=DIALECT))
    assert "set_config" not in without_limit


def test_one_round_trip_and_one_compilation(
    session: Session, engine: Engine, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "INTERVAL", 3600)  # the look, once a second, whether an encoder is being changed
    session.execute(nearest(Item.embedding, "warm up").limit(3)).all()
    statements.clear()
    before = len(engine._compiled_cache or ())
    for number in range(1000):
        session.execute(nearest(Item.embedding, f"words number {number}").limit(3)).all()
    assert len(statements) == 1000
    assert len(set(statements)) == 1
    assert len(engine._compiled_cache or ()) == before


def test_a_vector_as_postgres_writes_it_is_no_text(session: Session, vectors: Any) -> None:
    """What ``func.avg`` gives is a string, for SQLAlchemy does not know its type."""
    mean = session.scalar(select(func.avg(Item.embedding)).where(Item.id < 9))
    assert isinstance(mean, str)
    by_string = session.scalars(nearest(Item.embedding, mean).limit(5)).all()
    assert by_string == session.scalars(nearest(Item.embedding, vectors[:9].mean(axis=0)).limit(5)).all()
    each = session.execute(for_each(Item.embedding, [mean, "a text"], k=5)).all()
    assert [row[1] for row in each[:5]] == by_string
    assert session.scalars(nearest(Item.embedding, "[1, 2]").limit(5)).all(), "this is a text, in brackets"


def test_by_hand_is_the_same(
    session: Session, vectors: Any, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "INTERVAL", 3600)
    session.scalars(nearest(Item.embedding, vectors[9]).limit(7)).all()  # the first one looks what is served
    statements.clear()
    built = session.scalars(nearest(Item.embedding, vectors[9]).limit(7)).all()
    distance = Item.embedding.cosine_distance(vectors[9])
    assert session.scalars(select(Item).order_by(distance).limit(7)).all() == built
    labelled = distance.label("how_far")
    rows = session.execute(select(Item, labelled).where(distance < 0.9).order_by(labelled).limit(7)).all()
    assert [row[0] for row in rows] == built
    assert all("hnsw.ef_search" in statement for statement in statements)
    best = session.scalars(select(Item).order_by(Item.embedding.similarity(vectors[9]).desc()).limit(7)).all()
    assert best == built


# --- what can be searched with --------------------------------------------------------------------------------


def test_text_vector_instance_bind_and_expression(session: Session, vectors: Any) -> None:
    row = session.get_one(Item, 42)
    expected = [row.id for row in session.scalars(nearest(Item.embedding, vectors[42]).limit(5))]
    held = Item(title="transient", embedding=vectors[42])
    other = aliased(Item)
    stored = select(other.embedding).where(other.id == 42).scalar_subquery()
    for query in (vectors[42].tolist(), row, held, stored):
        assert [row.id for row in session.scalars(nearest(Item.embedding, query).limit(5))] == expected
    by_bind = nearest(Item.embedding, bindparam("q")).limit(5)
    assert [row.id for row in session.scalars(by_bind, {"q": vectors[42]})] == expected
    text_query = HASHING.encode_queries(["row 42"])[0]
    assert (
        session.scalars(by_bind, {"q": "row 42"}).all()
        == session.scalars(nearest(Item.embedding, text_query).limit(5)).all()
    )


def test_row_without_a_vector_is_left_out(session: Session) -> None:
    session.add(Plain(id=ROWS + 1, cat=0, title=None))
    session.flush()
    assert len(session.scalars(nearest(Plain.embedding, "row").limit(ROWS + 5)).all()) == ROWS


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        (np.zeros(DIM), VectorError, "zeros"),
        (np.ones(DIM - 1), VectorError, "23 dimensions.*24"),
        ([float("nan")] * DIM, VectorError, "NaN"),
        (None, QueryError, "None"),
        ("   ", NoEmbedding, "no embedding"),
        (7, VectorError, "shape"),
    ],
)
def test_what_cannot_be_searched_with(session: Session, query: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        session.execute(nearest(Item.embedding, query).limit(3))


def test_instances_that_cannot_be_searched_with(session: Session) -> None:
    with pytest.raises(QueryError, match="new and has no embedding yet"):
        nearest(Item.embedding, Item(title="x"))
    with pytest.raises(QueryError, match="embedding_column"):
        nearest(Item.title, "x")


def test_a_metric_that_the_index_does_not_serve(session: Session) -> None:
    with pytest.raises(MetricMismatch, match=r"cosine_vector_hnsw\.embedding.*serves cosine.*metric='l2'.*index=None"):
        Item.embedding.l2_distance("x")
    assert session.execute(select(Plain.embedding.l2_distance("row 1")).limit(1)).scalar() is not None


# --- as part of larger statements -----------------------------------------------------------------------------


def test_aliases_joins_subqueries_and_windows(session: Session, vectors: Any) -> None:
    expected = [row.id for row in session.scalars(nearest(Item.embedding, vectors[1]).limit(6))]
    other = aliased(Item, name="other")
    assert [row.id for row in session.scalars(nearest(other.embedding, vectors[1]).limit(6))] == expected
    joined = nearest(Item.embedding, vectors[1]).join(Plain, Plain.id == Item.id).where(Plain.cat >= 0).limit(6)
    assert [row.id for row in session.scalars(joined)] == expected
    filtered = nearest(Item.embedding, vectors[1]).where(exists().where(Plain.id == Item.id)).limit(6)
    assert [row.id for row in session.scalars(filtered)] == expected
    ranked = nearest(Item.embedding, vectors[1], distance=True).limit(6).subquery()
    assert session.execute(select(func.count(), func.max(ranked.c.distance)).select_from(ranked)).one()[0] == 6
    inner = aliased(Item, ranked)
    assert {row.id for row in session.scalars(select(inner))} == set(expected)
    core = nearest(Item.__table__.c.embedding, vectors[1]).limit(6)
    assert [row.id for row in session.connection().execute(core)] == expected


def test_pagination_by_distance(session: Session, vectors: Any) -> None:
    everything = session.execute(nearest(Item.embedding, vectors[2], distance=True, exact=True).limit(30)).all()
    seen: list[int] = []
    after = (-1.0, 0)
    distance = Item.embedding.cosine_distance(vectors[2])
    while len(seen) < 30:
        page = nearest(Item.embedding, vectors[2], distance=True, exact=True)
        page = page.where(tuple_(distance, Item.id) > tuple_(*after)).order_by(Item.id).limit(10)
        rows = session.execute(page).all()
        seen += [row[0].id for row in rows]
        after = (rows[-1].distance, rows[-1][0].id)
    assert seen == [row[0].id for row in everything]


def test_row_level_security(session: Session, vectors: Any) -> None:
    for command in (
        "CREATE ROLE reader_of_seven",
        "GRANT SELECT ON cosine_vector_hnsw TO reader_of_seven",
        "ALTER TABLE cosine_vector_hnsw ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY sevens ON cosine_vector_hnsw USING (cat = 7)",
        "SET LOCAL ROLE reader_of_seven",
    ):
        session.execute(text(command))
    rows = session.scalars(nearest(Item.embedding, vectors[0]).limit(20)).all()
    assert len(rows) == ROWS // 500
    assert {row.cat for row in rows} == {7}


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(engine: Engine, driver: str) -> None:
    async_engine: AsyncEngine = create_async_engine(engine.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(async_engine)() as session:
        for _ in range(7):  # the driver prepares a statement that comes again
            statement = nearest(Item.embedding, "row 42", score=True).where(Item.cat > 3).offset(1).limit(5)
            rows = (await session.execute(statement)).all()
            assert len(rows) == 5
        again = await session.scalars(nearest(Item.embedding, rows[0][0]).limit(1))
        assert again.one() is rows[0][0]
    await async_engine.dispose()


class Typed(Base):
    __tablename__ = "typed"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=HASHING)


def typing_examples(session: Session) -> None:
    """Never run: mypy reads it."""
    row = session.scalars(nearest(Typed.embedding, "x").limit(1)).one()
    vector: Vector | None = Typed(title="x").embedding
    statement: Select[Any] = select(Typed).order_by(Typed.embedding.cosine_distance("x"))
    del row, vector, statement
