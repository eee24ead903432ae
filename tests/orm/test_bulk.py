"""bulk_load: whatever it loads is what add_all would have written, all of it or nothing."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    REAL,
    URL,
    BigInteger,
    Column,
    Computed,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, TSVECTOR
from sqlalchemy.exc import DataError, IntegrityError, InternalError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from embeddb.errors import LoadError, VectorError
from embeddb.orm.bit_types import BIT
from embeddb.orm.bulk import bulk_load, bulk_load_async
from embeddb.orm.types import HALFVEC, VECTOR


class Colour(enum.Enum):
    red = 1
    blue = 2


class Reversed(TypeDecorator[str]):
    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value[::-1]


class Base(DeclarativeBase):
    pass


class Thing(Base):
    """Names that need quoting, and a column of each kind."""

    __tablename__ = "All Things"
    __table_args__ = ({"schema": "My Schema"},)
    id: Mapped[int] = mapped_column("The Id", BigInteger, primary_key=True)
    key: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4)
    small: Mapped[int | None] = mapped_column(SmallInteger)
    real: Mapped[float | None] = mapped_column(REAL)
    double: Mapped[float | None]
    truth: Mapped[bool | None] = mapped_column(default=True)
    plain: Mapped[datetime | None]
    zoned: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    day: Mapped[date | None]
    exact: Mapped[Decimal | None]
    json: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    numbers: Mapped[list[int | None] | None] = mapped_column(ARRAY(Integer))
    pause: Mapped[timedelta | None]
    colour: Mapped[Colour | None]
    title: Mapped[str | None] = mapped_column(String(20))
    mirrored: Mapped[str | None] = mapped_column(Reversed)
    raw: Mapped[bytes | None]
    made: Mapped[datetime | None] = mapped_column(server_default=func.now())
    length: Mapped[int | None] = mapped_column(Computed("length(title)", persisted=True))
    vector: Mapped[Any] = mapped_column(VECTOR(3), nullable=True)
    half: Mapped[Any] = mapped_column(HALFVEC(3), nullable=True)


ROW: dict[str, Any] = {
    "id": 7,
    "small": -5,
    "real": 1.5,
    "double": 0.1,
    "plain": datetime(2024, 2, 29, 12, 30, 5, 123456),
    "zoned": datetime(1999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-7))),
    "day": date(1815, 12, 10),
    "exact": Decimal("-12.345"),
    "json": {"a": [1, None, "é"]},
    "numbers": [1, None, 3],
    "pause": timedelta(days=2, microseconds=5),
    "colour": Colour.blue,
    "title": "Ünï\tcøde\n\\.",
    "mirrored": "abc",
    "raw": b"\0\xff",
    "vector": [1, 2, 3],
    "half": np.array([0.5, 1, -2]),
}
EMPTY: dict[str, Any] = {**dict.fromkeys(ROW), "id": 8}


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    with module_engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "My Schema"'))
        Base.metadata.create_all(connection)
    return module_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def _values(thing: Thing, row: dict[str, Any]) -> dict[str, Any]:
    found = {key: getattr(thing, key) for key in row}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in found.items()}


def _expected(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}


# --- what is loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[ROW, EMPTY], [EMPTY, {**ROW, "id": 9}, ROW]], ids=["value first", "NULL first"])
def test_every_kind_of_column(session: Session, rows: list[dict[str, Any]]) -> None:
    assert bulk_load(session, Thing, rows) == len(rows)
    for row in rows:
        thing = session.get_one(Thing, row["id"])
        assert _values(thing, row) == _expected(row)
        assert isinstance(thing.key, uuid.UUID)
        assert thing.truth is True
        assert thing.made is not None


def test_rows_of_any_shape_are_the_same(session: Session) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3)).astype(np.float32)
    ids, titles = list(range(50)), [f"number {n}" for n in range(50)]
    columns = [Thing.id, "title", "vector"]
    shapes: list[tuple[Any, Any]] = [
        ([{"id": i, "title": t, "vector": v} for i, t, v in zip(ids, titles, vectors, strict=True)], None),
        ([{"id": i, "title": t, "vector": v.tolist()} for i, t, v in zip(ids, titles, vectors, strict=True)], None),
        (zip(ids, titles, vectors, strict=True), columns),
        (((i, t, torch.tensor(v)) for i, t, v in zip(ids, titles, vectors, strict=True)), columns),
        ({"id": np.arange(50), "title": titles, "vector": vectors}, None),
        ({"id": range(50), "title": np.array(titles, object), "vector": list(vectors)}, None),
        ({"id": tuple(ids), "title": np.array(titles), "vector": torch.tensor(vectors)}, None),
        ({"id": ids, "title": titles, "vector": vectors.astype(">f8")[:, ::1]}, None),
    ]
    for rows, names in shapes:
        assert bulk_load(session, Thing, rows, columns=names, chunk=7) == 50
        found = session.execute(select(Thing.id, Thing.title, Thing.vector).order_by(Thing.id)).all()
        assert [(i, t) for i, t, _ in found] == list(zip(ids, titles, strict=True))
        assert np.array_equal(np.stack([v for _, _, v in found]), vectors)
        session.execute(delete(Thing))


integers = st.none() | st.integers(-(2**63), 2**63 - 1)
texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
vectors = st.none() | st.lists(st.floats(-60000, 60000, width=16), min_size=2, max_size=2).filter(any)


@given(st.lists(st.tuples(integers, texts, moments, vectors, vectors), min_size=1, max_size=20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_loading_is_inserting(engine: Engine, rows: list[tuple[Any, ...]], chunk: int) -> None:
    table = Table(
        "mixed",
        MetaData(),
        Column("number", BigInteger),
        Column("words", Text),
        Column("moment", TIMESTAMP(timezone=True)),
        Column("vector", VECTOR(2)),
        Column("half", HALFVEC(2)),
        prefixes=["TEMPORARY"],
    )
    names = [column.name for column in table.columns]
    with engine.connect() as connection:
        table.create(connection)
        assert bulk_load(connection, table, rows, columns=names, chunk=chunk) == len(rows)
        connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        alike = select(table.c.number, func.count()).group_by(*table.columns)
        assert all(count % 2 == 0 for _, count in connection.execute(alike))


def test_the_database_decides_what_a_column_is(session: Session) -> None:
    """A declared Integer may be a bigint, a String an enum or a domain over a domain, a vector in a domain too."""
    for statement in (
        "CREATE DOMAIN name AS text CHECK (value <> '')",
        "CREATE DOMAIN short AS name CHECK (length(value) < 5)",
        "CREATE DOMAIN place AS vector(3)",
        "CREATE TYPE mood AS ENUM ('sad', 'glad')",
        "CREATE TABLE odd (id bigint, mood mood, short short, place place, many vector, code char(3), raw json)",
    ):
        session.execute(text(statement))
    odd = Table(
        "odd",
        MetaData(),
        Column("id", Integer),
        *(Column(name, String) for name in ("mood", "short", "code")),
        *(Column(name, VECTOR) for name in ("place", "many")),
        Column("raw", Text),
    )
    rows: list[dict[str, Any]] = [
        {"id": 2**40, "mood": "glad", "short": "abc", "place": [1, 2, 3], "many": [1], "code": "x", "raw": "[1]"},
        {"id": 2, "mood": None, "short": None, "place": [3, 2, 1], "many": [1, 2], "code": None, "raw": None},
    ]
    assert bulk_load(session, odd, rows) == 2
    loaded = text("SELECT id, mood, short, place, many, code, raw FROM odd ORDER BY id DESC")
    assert session.execute(loaded).all() == [
        (2**40, "glad", "abc", "[1,2,3]", "[1]", "x  ", [1]),
        (2, None, None, "[3,2,1]", "[1,2]", None, None),
    ]
    with pytest.raises(VectorError, match=r"odd\.place of row 1 has 2 dimensions, and its column has 3"):
        bulk_load(session, odd, [{"place": [1, 2]}])


@given(
    codes=st.integers(1, 33).flatmap(
        lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=4)
    ),
    as_array=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_bits_are_what_add_all_writes(engine: Engine, codes: list[list[bool]], as_array: bool) -> None:
    table = Table("codes", MetaData(), Column("code", BIT(len(codes[0]))), prefixes=["TEMPORARY"])
    with Session(engine) as session:
        table.create(session.connection())
        session.execute(insert(table), [{"code": code} for code in codes])
        assert bulk_load(session, table, {"code": np.array(codes) if as_array else [*codes, None]}) >= len(codes)
        texts = session.scalars(text("SELECT code::text FROM codes WHERE code IS NOT NULL")).all()
        assert texts == 2 * ["".join("01"[bit] for bit in code) for code in codes]


def test_bits_that_do_not_fit(session: Session) -> None:
    table = Table("few", MetaData(), Column("code", BIT(3)), prefixes=["TEMPORARY"])
    table.create(session.connection())
    with pytest.raises(VectorError, match=r"few\.code of row 2 is str '01', and its column has 3 bits"):
        bulk_load(session, table, [{"code": "010"}, {"code": "01"}])


def test_a_column_of_pgvectors_own_type(session: Session) -> None:
    from pgvector.sqlalchemy import Vector as Stock

    table = Table("stock", MetaData(), Column("vector", Stock(3)), prefixes=["TEMPORARY"])
    table.create(session.connection())
    assert bulk_load(session, table, [{"vector": np.array([1, 2, 3])}]) == 1
    assert session.scalar(text("SELECT vector FROM stock")) == "[1,2,3]"


def test_kinds_of_a_hierarchy_and_rows_that_wait(engine18: Engine) -> None:
    class Local(DeclarativeBase):
        pass

    class Owner(Local):
        __tablename__ = "owners"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Pet(Local):
        __tablename__ = "pets"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        owner: Mapped[int] = mapped_column(ForeignKey("owners.id"))
        vector: Mapped[Any] = mapped_column(VECTOR(2))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}

    class Cat(Pet):
        __mapper_args__ = {"polymorphic_identity": "cat"}

    class Dog(Pet):
        __tablename__ = "dogs"
        id: Mapped[int] = mapped_column(ForeignKey("pets.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "dog"}

    Local.metadata.create_all(engine18)
    with Session(engine18) as session:
        session.add(Owner(id=1))
        assert bulk_load(session, Cat, {"owner": [1, 1], "vector": np.ones((2, 2))}) == 2
        assert [type(pet) for pet in session.scalars(select(Pet))] == [Cat, Cat]
        with pytest.raises(LoadError, match=r"Dog lies in .*pets.*: load each Table by itself"):
            bulk_load(session, Dog, [{"owner": 1}])


def test_triggers_fire_and_the_count_is_what_the_table_took(session: Session) -> None:
    session.execute(
        text(
            """
            CREATE FUNCTION pg_temp.odd_only() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.title := upper(NEW.title); RETURN CASE WHEN NEW."The Id" % 2 = 1 THEN NEW END; END'
            """
        )
    )
    session.execute(
        text(
            'CREATE TRIGGER odd BEFORE INSERT ON "My Schema"."All Things" '
            "FOR EACH ROW EXECUTE FUNCTION pg_temp.odd_only()"
        )
    )
    assert bulk_load(session, Thing, {"id": range(5), "title": list("abcde")}) == 2
    assert session.scalars(select(Thing.title).order_by(Thing.id)).all() == ["B", "D"]


# --- where it is loaded ---------------------------------------------------------------------------------------


def test_transactions_are_the_callers(engine: Engine) -> None:
    with Session(engine) as session:
        bulk_load(session, Thing, [ROW])
        bulk_load(session.connection(), Thing.__table__, [{"The Id": 8}])  # type: ignore[arg-type]
    count = select(func.count()).select_from(Thing)
    with engine.connect() as connection:
        assert connection.scalar(count) == 0
    assert bulk_load(engine, Thing, [ROW]) == 1
    sessions = scoped_session(sessionmaker(engine))
    bulk_load(sessions, Thing, [EMPTY])
    sessions.remove()  # an open transaction would hold up whoever loads the same key next
    with engine.begin() as connection:
        assert connection.scalar(count) == 1
        connection.execute(delete(Thing))


@pytest.mark.parametrize("bad", [{"vector": [0, 0, 0]}, {"id": 7}])
def test_all_or_nothing(engine: Engine, bad: dict[str, Any]) -> None:
    rows = [{**ROW, "id": number} for number in range(20)] + [{**ROW, "id": 21, **bad}]
    with pytest.raises((VectorError, IntegrityError)):
        bulk_load(engine, Thing, rows, chunk=3)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Thing)) == 0


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_asyncio(url18: URL, driver: str) -> None:
    engine = create_async_engine(url18.set(drivername=f"postgresql+{driver}"))
    async with engine.begin() as connection:
        await connection.execute(text('CREATE SCHEMA "My Schema"'))
        await connection.run_sync(Base.metadata.create_all)
    calls: list[tuple[int, int]] = []
    assert await bulk_load_async(engine, Thing, [ROW, EMPTY], chunk=1, progress=lambda *n: calls.append(n)) == 2
    assert calls == [(1, 2), (2, 2)]
    async with AsyncSession(engine) as session:
        assert _values(await session.get_one(Thing, 7), ROW) == _expected(ROW)
        assert await bulk_load_async(session, Thing, [{"id": 1}]) == 1
        connection = await session.connection()
        assert await bulk_load_async(connection, Thing, iter([{"id": 2}])) == 1
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None)
    with pytest.raises(VectorError, match=r"row 1 \(The Id=3\)"):
        await bulk_load_async(scoped, Thing, [{"id": 3, "vector": [1, 2]}])
    await scoped.remove()
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(Thing)) == 2
    await engine.dispose()


def test_other_drivers_and_targets(engine: Engine, session: Session) -> None:
    psycopg2 = create_engine(engine.url.set(drivername="postgresql+psycopg2"))
    with pytest.raises(LoadError, match="COPY needs the driver psycopg or asyncpg, and this engine has psycopg2"):
        bulk_load(psycopg2, Thing, [ROW])
    psycopg2.dispose()
    with pytest.raises(LoadError, match="not 'engine'; see bulk_load_async"):
        bulk_load("engine", Thing, [ROW])  # type: ignore[arg-type]
    with pytest.raises(LoadError, match="a mapped class or a Table, not <class 'int'>"):
        bulk_load(session, int, [ROW])


def test_schema_translation(engine: Engine) -> None:
    table = Table("t", MetaData(), Column("id", Integer), schema="nowhere")
    translated = engine.execution_options(schema_translate_map={"nowhere": "My Schema"})
    with translated.begin() as connection:
        table.create(connection)
        assert bulk_load(connection, table, {"id": [1, 2]}) == 2
        assert connection.scalars(select(table.c.id)).all() == [1, 2]
        table.drop(connection)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"small": 70000}, "small of row 2 .* is 70000, of type int: give an integer from -32768 to 32767"),
        ({"small": 1.5}, "small .* is 1.5, of type float: give an integer from -32768"),
        ({"small": "1"}, "small .* is '1', of type str: give an integer"),
        ({"small": 2**70}, "small .*: give an integer"),
        ({"real": 1e300}, "real .* is 1e\\+300, which is beyond its column"),
        ({"double": "x"}, "double .* is 'x', of type str: give a number"),
        ({"truth": 1}, "truth .* is 1, of type int: give True or False"),
        ({"plain": ROW["zoned"]}, "plain .*: give a datetime without tzinfo"),
        ({"zoned": ROW["plain"]}, "zoned .*: give a datetime with tzinfo"),
        ({"day": ROW["plain"]}, "day .* of type datetime: give a date"),
        ({"exact": "x"}, "exact .* is 'x', of type str, which its column does not take"),
        ({"numbers": 5}, "numbers .* is 5, which its type refuses"),
        ({"colour": 5}, "colour .* is 5, which its type refuses"),
        ({"json": {"a": object()}}, "json .* not JSON serializable"),
        ({"title": 5}, "title .* is 5, of type int: give a string"),
        ({"title": "a\0b"}, "title .* holds a NUL character"),
        ({"title": "\ud800"}, "title .* cannot be written in the connection's encoding"),
        ({"raw": "x"}, "raw .* is 'x', of type str: give bytes"),
        ({"key": "x"}, "key .* is 'x', of type str: give a uuid.UUID"),
        ({"vector": [1, 2]}, "vector .* has 2 dimensions, and its column has 3"),
        ({"vector": [1, np.nan, 1]}, "vector .* holds NaN at position 1"),
        ({"vector": "[1,2,3]"}, "vector .* cannot be made of str"),
        ({"vector": np.zeros(3)}, "vector .* is all zeros"),
        ({"half": [1e6, 1, 1]}, "half .* ends at 65504"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0][:40] if isinstance(value, dict) else "",
)
def test_bad_values_are_named(session: Session, bad: dict[str, Any], words: str) -> None:
    rows = [{**ROW, "truth": True, "key": uuid.uuid4()}, {**ROW, "truth": True, "key": uuid.uuid4(), "id": 99, **bad}]
    with pytest.raises((LoadError, VectorError), match=words) as caught:
        bulk_load(session, Thing, rows)
    assert "row 2 (The Id=99)" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([{"id": 1, "zip": 2}], None, "All Things has no 'zip' to load: it has id, key, small"),
        ([{"id": 1}, {"id": 2, "small": 3}], None, "row 2 and the first one differ in small"),
        ([{"id": 1, "small": 3}, {"id": 2}], None, "row 2 and the first one differ in small"),
        ([{"id": 1, "small": 3}, {"id": 2, "smal": 3}], None, "row 2 and the first one differ in smal, small"),
        ([{"id": 1}, (2,)], None, "row 2 is tuple, and the first one is a mapping"),
        ([(1, 2)], None, "need columns="),
        ([(1, 2), (1,)], ["id", "small"], "row 2 is not a tuple of 2 values"),
        (["12"], ["id", "small"], "row 1 is not a tuple of 2 values"),
        ({"id": [1, 2], "small": [1]}, None, r"different lengths cannot be rows \(id: 2, small: 1\)"),
        ([{"small": 1}], None, "The Id is NOT NULL and has no default"),
        ([{"id": 1, "length": 5}], None, "length is generated by Postgres: leave it out"),
        ({"id": [1], "vector": np.ones((1, 4))}, None, r"an array of float64 of shape \(1, 4\)"),
    ],
    ids=lambda value: "" if isinstance(value, list) and value and isinstance(value[0], str) else str(value)[:40],
)
def test_bad_shapes_are_refused(session: Session, rows: Any, columns: Any, words: str) -> None:
    if words.startswith("The Id"):
        session.execute(text('ALTER TABLE "My Schema"."All Things" ALTER "The Id" DROP DEFAULT'))
    with pytest.raises((LoadError, VectorError), match=words):
        bulk_load(session, Thing, rows, columns=columns)


def test_no_rows(session: Session) -> None:
    nothing: list[Any] = [[], {}, {"id": []}, iter(())]
    assert [bulk_load(session, Thing, rows) for rows in nothing] == [0, 0, 0, 0]


def test_what_this_way_cannot_do_is_said(session: Session) -> None:
    table = Table(
        "hard",
        MetaData(),
        Column("id", Integer, default=func.random()),
        Column("context", Integer, default=lambda context: context.get_current_parameters()["id"]),
        Column("words", TSVECTOR),
        Column("absent", Integer, system=False),
    )
    missing = Table("missing", MetaData(), Column("id", Integer))
    with pytest.raises(LoadError, match="there is no table missing in the database"):
        bulk_load(session, missing, [{"id": 1}])
    session.execute(text("CREATE TABLE hard (id int, context int, words tsvector)"))
    with pytest.raises(LoadError, match=r"hard\.id has a default that only SQLAlchemy's INSERT can make"):
        bulk_load(session, table, [{"context": 1}])
    with pytest.raises(LoadError, match=r"hard\.context has a default"):
        bulk_load(session, table, [{"id": 1}])
    with pytest.raises(LoadError, match=r"hard\.words is of type tsvector, for which there is no binary form"):
        bulk_load(session, table, [{"id": 1, "context": 1, "words": "a"}])
    with pytest.raises(LoadError, match=r"hard\.absent is not in the database"):
        bulk_load(session, table, [{"id": 1, "context": 1, "absent": 1}])


def test_the_servers_errors_are_sqlalchemys(engine: Engine) -> None:
    with pytest.raises(DataError, match="too long"):
        bulk_load(engine, Thing, [{"id": 1, "title": "x" * 21}])
    with Session(engine) as session:
        bulk_load(session, Thing, [{"id": 1}])
        with pytest.raises(IntegrityError):
            bulk_load(session, Thing, [{"id": 1}])
        with pytest.raises(InternalError, match="current transaction is aborted"):
            bulk_load(session, Thing, [{"id": 2}])
        session.rollback()
        assert bulk_load(session, Thing, [{"id": 1}]) == 1
