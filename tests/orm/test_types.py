"""VECTOR and HALFVEC: what goes in comes out, by every driver and statement, and what may not go in does not."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sqlalchemy import (
    URL,
    Column,
    Engine,
    Integer,
    Table,
    TextClause,
    bindparam,
    cast,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
    union,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, undefer

from embeddb.errors import VectorError
from embeddb.metrics import METRICS
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.vectors import Vector, check_vector, from_text


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    single: Mapped[Any] = mapped_column(VECTOR(3), nullable=True)
    half: Mapped[Any] = mapped_column(HALFVEC(3), nullable=True)
    late: Mapped[Any] = mapped_column(VECTOR(3), nullable=True, deferred=True)


anything = Table(
    "anything",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("single", VECTOR()),
    Column("half", HALFVEC()),
)
A, B, C = ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [-1.0, 0.0, 0.5])


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    Base.metadata.create_all(module_engine)
    return module_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        session.add_all([Item(id=1, name="a", single=A, half=A), Item(id=2, name="b", single=B, late=B)])
        session.flush()
        session.expunge_all()
        yield session


def _storable(vector: Vector) -> bool:
    try:
        check_vector(vector, storage="halfvec")
    except VectorError:
        return False
    return True


batches = st.lists(
    arrays.arrays(
        np.float32,
        st.integers(1, 20),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-70000, 70000, width=32),
    ).filter(lambda vector: vector.any()),
    min_size=1,
    max_size=20,
)


def _rows(batch: list[Vector]) -> list[dict[str, Any]]:
    return [
        {"id": number, "single": vector, "half": vector if _storable(vector) else None}
        for number, vector in enumerate(batch)
    ]


def _check(batch: list[Vector], found: Any) -> None:
    for vector, row in zip(batch, found, strict=True):
        assert row.single.tobytes() == vector.tobytes()
        if row.half is None:
            assert not _storable(vector)
        else:
            assert row.half.tobytes() == vector.astype(np.float16).astype(np.float32).tobytes()


# --- round trips ----------------------------------------------------------------------------------------------


@given(batch=batches)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_vector_survives(engine: Engine, batch: list[Vector]) -> None:
    with engine.connect() as connection:
        connection.execute(insert(anything), _rows(batch))
        _check(batch, connection.execute(select(anything).order_by(anything.c.id)))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_any_vector_survives_asyncio(url18: URL, driver: str) -> None:
    engine = create_async_engine(url18.set(drivername=f"postgresql+{driver}"))

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def there_and_back(batch: list[Vector]) -> None:
        async with engine.connect() as connection:
            await connection.execute(insert(anything), _rows(batch))
            _check(batch, await connection.execute(select(anything).order_by(anything.c.id)))
            streamed = await connection.stream(select(anything).order_by(anything.c.id))
            _check(batch, [row async for row in streamed])

    with asyncio.Runner() as runner:
        runner.run(create())
        given(batch=batches)(
            settings(max_examples=25, deadline=None)(lambda batch: runner.run(there_and_back(batch)))
        )()
        runner.run(engine.dispose())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prepare_threshold": None},
        {"prepare_threshold": 0},
        {"cursor_factory": psycopg.ClientCursor},
    ],
    ids=["default", "pgbouncer", "prepared", "client-side"],
)
def test_settings_of_psycopg(engine: Engine, options: dict[str, Any]) -> None:
    _use(create_engine(engine.url, connect_args=options))


def test_psycopg2_takes_text(engine: Engine) -> None:
    _use(create_engine(engine.url.set(drivername="postgresql+psycopg2")))


def _use(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # a connection that has never heard of vectors
        for number in range(1, 8):
            connection.execute(insert(Item), [{"id": number * 10 + i, "single": A, "half": B} for i in range(2)])
            connection.execute(
                update(Item).where(Item.id == bindparam("key")).values(single=bindparam("vector")),
                [{"key": number * 10 + i, "vector": np.array(C)} for i in range(2)],
            )
            found = connection.execute(select(Item.id, Item.single, Item.half).where(Item.single == C)).all()
            assert len(found) == 2 * number
            assert all(row.single.tolist() == C and row.half.tolist() == B for row in found)
            assert connection.scalar(select(Item.single.l2_distance(C)).limit(1)) == 0
        stream = connection.execution_options(stream_results=True, max_row_buffer=3).execute(
            select(Item.id, Item.single)
        )
        assert all(row.single.tolist() == C for row in stream)
    engine.dispose()


def test_an_engine_older_than_embeddb(url18: URL) -> None:
    """Nothing global is patched, and yet what was made before the import works, in C and in Python."""
    script = f"""
        import sys
        from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select, text
        engine = create_engine({url18.render_as_string(hide_password=False)!r})
        connection = engine.connect()
        connection.execute(text("SELECT 1"))
        assert not any(name.startswith("embeddb") for name in sys.modules)
        import psycopg.adapt
        known = {{format: dict(dumpers) for format, dumpers in psycopg.adapters._dumpers.items()}}
        from embeddb.orm.types import VECTOR
        table = Table("old", MetaData(), Column("id", Integer), Column("vector", VECTOR(3)))
        table.create(connection)
        connection.execute(insert(table), [{{"id": 1, "vector": [1, 2, 3]}}])
        for _ in range(2):
            assert connection.execute(select(table)).one().vector.tolist() == [1, 2, 3]
        assert psycopg.adapters._dumpers == known
        print(psycopg.pq.__impl__)
    """
    for implementation in ("binary", "python"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
            env={"PSYCOPG_IMPL": implementation},
            capture_output=True,
            text=True,
            check=False,
        )
        if implementation == "python" and "libpq" in done.stderr:
            pytest.skip("psycopg in Python needs a libpq of the system's")
        assert done.stdout.strip() == implementation, done.stderr


def test_first_use_in_many_threads(engine: Engine) -> None:
    fresh = create_engine(engine.url, pool_size=8)

    def use(number: int) -> list[float]:
        with fresh.connect() as connection:
            connection.execute(insert(Item), [{"id": number, "single": A}])
            found: list[float] = connection.scalars(select(Item.single)).one().tolist()
            return found

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [A] * 8
    fresh.dispose()


def test_binary_on_the_wire(session: Session) -> None:
    """Parameters always; results, where nothing else in them could suffer from it."""
    seen: list[tuple[set[int], set[int]]] = []

    @event.listens_for(session.get_bind(), "after_cursor_execute")
    def look(connection: Any, cursor: Any, *rest: Any) -> None:
        columns = range(cursor.pgresult.nfields)
        seen.append(({int(f) for f in cursor._query.formats}, {cursor.pgresult.fformat(i) for i in columns}))

    for columns in ((Item.id, Item.single, Item.half), (Item.id, Item.name, Item.single), (Item.id,)):
        session.execute(select(*columns).where(Item.single == A)).all()
    event.remove(session.get_bind(), "after_cursor_execute", look)
    assert seen == [({1}, {1}), ({1}, {0}), ({1}, {0})]


def test_beside_pgvectors_own_registration(engine: Engine) -> None:
    from pgvector.psycopg import register_vector

    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        register_vector(driver)
        connection.execute(insert(Item), [{"id": 1, "single": np.array(A), "half": A}])
        plain = text("SELECT single, half FROM items").columns(single=VECTOR(3), half=HALFVEC(3))
        for statement in (plain, select(Item.single, Item.half)):
            row = connection.execute(statement).one()
            assert (row.single.tolist(), row.half.tolist()) == (A, A)
            assert row.single.dtype == row.half.dtype == np.float32
        connection.invalidate()


def test_pgvector_in_another_schema(engine18: Engine) -> None:
    with engine18.begin() as connection:
        for statement in ("DROP EXTENSION vector", "CREATE SCHEMA ext", "CREATE EXTENSION vector SCHEMA ext"):
            connection.execute(text(statement))
    engine = create_engine(engine18.url, connect_args={"options": "-c search_path=public,ext"})
    Base.metadata.create_all(engine)
    _use(engine)


# --- statements -----------------------------------------------------------------------------------------------

Statement = Callable[[], Any]
other = aliased(Item)
rows = select(Item.id, Item.single).cte()
both = union(select(Item.id, Item.single), select(Item.id + 10, Item.single)).subquery()
proposed = pg_insert(Item).values(id=1, single=C)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (select(Item.single).order_by(Item.id), [A, B]),
        (select(Item.single).distinct().where(Item.id == 1), [A]),
        (select(Item.single.label("x")).order_by("x"), [A, B]),
        (select(Item.single).group_by(Item.id).order_by(Item.id), [A, B]),
        (union(select(Item.single).where(Item.id == 1), select(Item.single).where(Item.id < 2)), [A]),
        (select(both.c.single).order_by(both.c.id), [A, B, A, B]),
        (select(rows.c.single).order_by(rows.c.single.l2_distance(B)), [B, A]),
        (select(select(Item.single).where(Item.id == 2).scalar_subquery()), [B]),
        (select(other.single).where(other.single.in_([A, C])), [A]),
        (select(Item.single).where(Item.single != np.array(A)), [B]),
        (select(func.sum(Item.single)), [[4, 3, 5]]),
        (select(func.avg(Item.single, type_=VECTOR(3))), [[2, 1.5, 2.5]]),
        (select(Item.single - A).order_by(Item.id), [[0, 0, 0], [2, -1, -1]]),
        (select(func.coalesce(Item.late, literal(C, VECTOR(3)))).order_by(Item.id), [C, B]),
        (select(Item.late).order_by(Item.id), [None, B]),
        (select(literal(A, HALFVEC(3))), [A]),
        (select(literal(A, VECTOR(3), literal_execute=True)), [A]),
        (select(cast(Item.single, HALFVEC(3))).order_by(Item.id), [A, B]),
        (select(type_coerce(literal_column("'[1,2,3]'::vector"), VECTOR)), [A]),
        (select(values(Column("v", VECTOR(3)), name="given").data([(A,), (C,)])), [A, C]),
        (text("SELECT single FROM items ORDER BY id").columns(single=VECTOR(3)), [A, B]),
        (insert(Item).values(id=3, single=C).returning(Item.single), [C]),
        (insert(Item).from_select(["single"], select(Item.single).where(Item.id == 1)).returning(Item.single), [A]),
        (proposed.on_conflict_do_update(index_elements=["id"], set_={"single": B}).returning(Item.single), [B]),
        (
            proposed.on_conflict_do_update(index_elements=["id"], set_={"single": proposed.excluded.single}).returning(
                Item.single
            ),
            [C],
        ),
        (update(Item).where(Item.id == 2).values(single=C).returning(Item.single), [C]),
        (update(Item).where(Item.id == 2).values(single=None).returning(Item.single), [None]),
        (delete(Item).where(Item.single.cosine_distance(A) < 1e-6).returning(Item.single), [A]),
    ],
    ids=lambda value: " ".join(str(value).split())[:60] if not isinstance(value, list) else "",
)
def test_statements(session: Session, statement: Any, expected: list[Any]) -> None:
    session.execute(text("SELECT setval('items_id_seq', 100)"))
    for _ in range(2):  # the first result of an engine is in text
        with session.begin_nested() as savepoint:
            found = [None if v is None else v.tolist() for v in session.connection().scalars(statement)]
            savepoint.rollback()
        assert found == expected


@pytest.mark.parametrize("column", [Item.single, Item.half])
@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if "vector" in metric.opclass])
def test_distances_are_those_of_numpy(session: Session, column: Any, metric: Any) -> None:
    a, c = np.array(A), np.array(C)
    expected = {
        "cosine": 1 - a @ c / np.linalg.norm(a) / np.linalg.norm(c),
        "l2": np.linalg.norm(a - c),
        "inner_product": -(a @ c),
        "l1": np.abs(a - c).sum(),
    }
    distance = getattr(column, metric.comparator)
    for operand in (C, np.array(C), literal(C, column.type), bindparam(None, C), other_vector(column, C)):
        found = session.scalar(select(distance(operand)).where(Item.id == 1))
        assert found == pytest.approx(expected[metric.name], rel=1e-6)


def other_vector(column: Any, value: list[float]) -> Any:
    """The value as a scalar subquery."""
    return select(literal(value, column.type)).scalar_subquery()


def test_zeros_can_be_searched_for_except_by_angle(session: Session) -> None:
    zeros = [0, 0, 0]
    assert session.scalar(select(Item.single.l2_distance(zeros)).where(Item.id == 1)) == pytest.approx(14**0.5)
    assert session.scalar(select(Item.half.inner_product(zeros)).where(Item.id == 1)) == 0
    with pytest.raises(VectorError, match="vector to search for is all zeros"):
        session.scalar(select(Item.single.cosine_distance(zeros)))


@pytest.mark.parametrize(
    ("driver", "literal_binds", "sql"),
    [
        ("psycopg", False, "items.single <=> %(param_1)s::vector"),
        ("asyncpg", False, "items.single <=> $1::real[]::vector"),
        ("psycopg", True, "items.single <=> '[1.0,2.0,3.0]'::vector"),
        ("asyncpg", True, "items.single <=> '{1.0,2.0,3.0}'::real[]::vector"),
    ],
    ids=["psycopg", "asyncpg", "psycopg-literal", "asyncpg-literal"],
)
def test_sql(driver: str, literal_binds: bool, sql: str) -> None:
    statement = select(Item.single).order_by(Item.single.cosine_distance(A))
    dialect = create_engine(f"postgresql+{driver}://").dialect
    compiled = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": literal_binds})
    assert " ".join(str(compiled).split()) == f"SELECT vector_send(items.single) AS single FROM items ORDER BY {sql}"


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[1, 2], [np.nan, 1, 1], [0, 0, 0], "[1,2,3]", [1e39, 0, 0]], ids=repr)
def test_refused_before_the_server_is_asked(session: Session, bad: Any) -> None:
    session.commit()
    statements: list[str] = []
    event.listen(
        session.get_bind(), "before_cursor_execute", lambda c, cur, statement, *rest: statements.append(statement)
    )
    session.add(Item(single=bad))
    with pytest.raises(VectorError):
        session.flush()
    session.rollback()
    for statement in (
        insert(Item).values(single=bad),
        update(Item).values(half=bad),
        select(Item.single.cosine_distance(bad)),
    ):
        with pytest.raises(VectorError):
            session.connection().execute(statement)
    assert statements == []
    session.execute(delete(Item))
    session.commit()


def test_half_precision_is_refused_where_it_would_overflow(session: Session) -> None:
    with pytest.raises(VectorError, match="ends at 65504"):
        session.execute(update(Item).values(half=[70000, 1, 1]))
    session.execute(update(Item).values(single=[70000, 1, 1]))


# --- entities -------------------------------------------------------------------------------------------------


def test_entities_can_be_compared_copied_pickled_and_merged(session: Session) -> None:
    item = session.get_one(Item, 1)
    assert not item.single.flags.writeable
    for same in (pickle.loads(pickle.dumps(item)), copy.deepcopy(item), copy.copy(item)):
        assert same.single.tolist() == A
    assert item == session.get(Item, 1)
    item.single = np.array(A)
    assert not session.is_modified(item)
    item.single = None
    assert session.is_modified(item)
    item.single = func.l2_normalize(cast([3, 4, 0], VECTOR(3)))
    session.flush()
    assert item.single.tolist() == pytest.approx([0.6, 0.8, 0])
    merged = session.merge(Item(id=1, name="a", single=B, half=A))
    assert merged is item
    assert session.is_modified(item)
    session.flush()
    session.refresh(item)
    assert item.single.tolist() == B
    session.merge(Item(id=1, single=np.array(B, np.float32)))
    assert not session.is_modified(item)


def test_deferred(session: Session) -> None:
    item = session.scalars(select(Item).where(Item.id == 2)).one()
    assert "late" in inspect(item).unloaded
    assert item.late.tolist() == B
    session.expunge_all()
    item = session.scalars(select(Item).where(Item.id == 2).options(undefer(Item.late))).one()
    assert "late" not in inspect(item).unloaded
    from_text_sql = select(Item).from_statement(text("SELECT * FROM items WHERE id = 2"))
    assert session.scalars(from_text_sql).one().single.tolist() == B


# --- the types themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports", [("pgvector.sqlalchemy", "embeddb.orm.types"), ("embeddb.orm.types", "pgvector.sqlalchemy")]
)
def test_reflection(engine: Engine, imports: tuple[str, str]) -> None:
    """In a process of its own: pgvector.sqlalchemy claims the same names, and both may be imported in either order."""
    script = f"""
        import {imports[0]}
        import {imports[1]}
        import embeddb.orm.types
        from sqlalchemy import MetaData, Table, create_engine
        engine = create_engine({engine.url.render_as_string(hide_password=False)!r})
        for name in ("items", "anything"):
            for column in Table(name, MetaData(), autoload_with=engine).columns:
                if isinstance(column.type, embeddb.orm.types.VectorType):
                    print(column, repr(column.type))
        engine.dispose()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "items.single VECTOR(dim=3)",
        "items.half HALFVEC(dim=3)",
        "items.late VECTOR(dim=3)",
        "anything.single VECTOR()",
        "anything.half HALFVEC()",
    ], done.stderr


def test_types_are_told_apart_by_the_statement_cache() -> None:
    keys = {
        repr(literal_column("x", kind)._generate_cache_key()) for kind in (VECTOR(3), VECTOR(4), VECTOR(), HALFVEC(3))
    }
    assert len(keys) == 4
    assert VECTOR(3).copy().dim == VECTOR("3").dim == pickle.loads(pickle.dumps(VECTOR(3))).dim == 3
    assert VECTOR(3).python_type is np.ndarray


def test_subclasses_say_what_a_vector_is_and_how_long(session: Session) -> None:
    class Spelt(VECTOR):
        cache_ok = True

        @property
        def dim(self) -> int:
            return 3

        def coerce(self, value: Any) -> Vector:
            return super().coerce(from_text(value) if isinstance(value, str) else value)

    assert Spelt().get_col_spec() == "vector(3)"
    assert session.scalars(select(literal("[1,2,3]", Spelt()))).one().tolist() == A
    with pytest.raises(VectorError, match="2 dimensions, and its column has 3"):
        session.scalar(select(literal("[1,2]", Spelt())))


def test_text_sql_without_types_is_left_alone(session: Session) -> None:
    statement: TextClause = text("SELECT single FROM items WHERE id = 1")
    assert session.scalar(statement) == "[1,2,3]"
