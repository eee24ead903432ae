"""L1, Hamming and Jaccard: what pgvector accepts is accepted, the rest refused; searches against NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from embeddb import HNSW, IVFFlat, Vector, embedding_column, nearest
from embeddb.encoders import Hashing
from embeddb.errors import DeclarationError, MetricMismatch, QueryError, VectorError
from embeddb.insight.recall import measure
from embeddb.metrics import METRICS
from embeddb.orm.bits import bit_column
from embeddb.query.for_each import for_each
from embeddb.query.knn_join import knn_join
from embeddb.query.pages import page
from embeddb.query.plan import assert_uses_index
from embeddb.query.similar_to import similar_to
from embeddb.query.within import within
from embeddb.vectors.bits import Bits, as_bits, from_bits
from tests.query.items import prefer_indexes

BITS = 64
H = Hashing(dim=8)
HAMMING: Any = "hamming"
NO: Any = "no"
ROWS = 1500


class Base(DeclarativeBase):
    pass


class Picture(Base):
    __tablename__ = "picture"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    phash: Mapped[Bits | None] = bit_column(BITS)
    lists: Mapped[Bits | None] = bit_column(BITS, index=IVFFlat(lists=4))
    features: Mapped[Bits | None] = bit_column(BITS, metric="jaccard")
    whole: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(dim=16), metric="l1")
    half: Mapped[Vector | None] = embedding_column(
        "title", encoder=Hashing(dim=16), metric="l1", storage="halfvec", index=HNSW()
    )


def made() -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    seeds = rng.random((20, BITS)) < 0.4
    bits = seeds[rng.integers(20, size=ROWS)] ^ (rng.random((ROWS, BITS)) < 0.08)
    return bits, rng.normal(size=(ROWS, 16)).astype(np.float32)


BIT_ROWS, VECTORS = made()


@pytest.fixture(scope="module")
def pictures(module_engine: Engine) -> Engine:
    Base.metadata.create_all(module_engine)
    rows = [
        {"id": n, "title": f"{n}", "phash": bits, "lists": bits, "features": bits, "whole": vector, "half": vector}
        for n, (bits, vector) in enumerate(zip(BIT_ROWS, VECTORS, strict=True))
    ]
    with module_engine.begin() as connection:
        connection.execute(Picture.__table__.insert(), rows)  # type: ignore[attr-defined]
        connection.execute(text("REINDEX TABLE picture"))
        connection.execute(text("ANALYZE"))
    return module_engine


@pytest.fixture
def session(pictures: Engine) -> Iterator[Session]:
    with Session(pictures) as session:
        prefer_indexes(session)
        yield session


def jaccard(bits: Any, query: Any) -> Any:
    return 1 - (bits & query).sum(axis=1) / (bits | query).sum(axis=1)


DISTANCES: dict[str, Any] = {
    "phash": lambda at: (BIT_ROWS ^ BIT_ROWS[at]).sum(axis=1),
    "lists": lambda at: (BIT_ROWS ^ BIT_ROWS[at]).sum(axis=1),
    "features": lambda at: jaccard(BIT_ROWS, BIT_ROWS[at]),
    "whole": lambda at: np.abs(VECTORS - VECTORS[at]).sum(axis=1),
    "half": lambda at: np.abs(VECTORS - VECTORS[at]).sum(axis=1),
}


def test_columns_of_as_many_bits_are_one_space(session: Session) -> None:
    rows = session.execute(knn_join(Picture.lists, aliased(Picture).phash, k=1).where(Picture.id < 5)).all()
    differing = [np.delete(DISTANCES["phash"](at), at).min() for at in range(5)]
    assert [(mine.id, distance) for mine, _theirs, distance in rows] == list(enumerate(differing))


@pytest.mark.parametrize("name", DISTANCES)
def test_searches(session: Session, name: str) -> None:
    column = getattr(Picture, name)
    values = VECTORS if name in ("whole", "half") else BIT_ROWS
    hits = 0
    for at in (3, 500, 1200):
        exact = DISTANCES[name](at)
        statement = nearest(column, values[at], distance=True, score=True).limit(10)
        assert_uses_index(session, statement, f"ix_picture_{name}_{'ivfflat' if name == 'lists' else 'hnsw'}")
        rows = session.execute(statement).all()
        assert len(rows) == 10
        found = np.array([row.distance for row in rows])
        assert np.allclose(found, exact[[row[0].id for row in rows]], rtol=5e-3, atol=1e-5)
        assert np.allclose([row.score for row in rows], column.type.settings.metric.score(found))
        hits += int((found <= np.sort(exact)[9] * 1.005 + 1e-6).sum())
    assert hits >= 27
    every = session.execute(within(column, values[3], distance=float(np.sort(DISTANCES[name](3))[40]) + 1e-3)).all()
    assert len(every) >= 41


def test_helpers_on_bits(session: Session) -> None:
    found = session.execute(for_each(Picture.phash, [BIT_ROWS[3], np.packbits(BIT_ROWS[4])], k=3)).all()
    assert [row.ordinal for row in found] == [0, 0, 0, 1, 1, 1]
    assert found[0].distance == found[3].distance == 0
    other = aliased(Picture)
    pairs = session.execute(knn_join(Picture.phash, other.phash, k=1).where(Picture.id < 5)).all()
    assert len(pairs) == 5
    pages: list[int] = []
    after: Any = None
    for _ in range(6):  # sixty-five distances at most, so that most rows tie
        rows = session.execute(page(Picture.phash, BIT_ROWS[3], 15, after=after)).all()
        pages += [row[0].id for row in rows]
        after = rows[-1]
    assert len(set(pages)) == 90
    row = session.get_one(Picture, 9)
    assert session.scalars(nearest(Picture.phash, row).limit(1)).one().phash.tolist() == BIT_ROWS[9].tolist()
    with pytest.raises(QueryError, match="bits have no sum"):
        similar_to(Picture.phash, row)


def test_masked_and_rotated_rerank(session: Session) -> None:
    """Candidates by the Hamming index, ordered by the least distance over rotations, of the bits that a mask leaves."""
    mask = "1" * 48 + "0" * 16
    query = BIT_ROWS[7]
    near = nearest(Picture.phash, query).limit(100).subquery()
    code = aliased(Picture, near)
    turns = [as_bits(np.roll(query, turn), BITS) for turn in (-1, 0, 1)]
    hamming = [func.bit_count(code.phash.op("#")(turn).op("&")(as_bits(mask, BITS))) for turn in turns]
    rows = session.execute(select(code.id, func.least(*hamming).label("bits")).order_by("bits", code.id).limit(5)).all()
    kept = np.array([bit == "1" for bit in mask])
    exact = np.min([((BIT_ROWS ^ np.roll(query, turn)) & kept).sum(axis=1) for turn in (-1, 0, 1)], axis=0)
    assert [row.bits for row in rows] == exact[[row.id for row in rows]].tolist()
    assert rows[0].id == 7


@given(bits=st.lists(st.booleans(), min_size=16, max_size=16))
def test_every_form_of_bits(bits: list[bool]) -> None:
    expected = "".join("01"[bit] for bit in bits)
    packed = np.packbits(bits)
    forms = [expected, bits, np.array(bits), np.array(bits, int), packed, packed.tobytes(), int(expected, 2)]
    for value in (*forms, np.array(bits).reshape(4, 4), type("ImageHash", (), {"hash": np.array(bits)})()):
        assert as_bits(value, 16) == expected
    assert from_bits(expected).tolist() == bits


@pytest.mark.parametrize("value", ["01", "x" * 16, b"1", [True], np.full(16, 2), 1 << 16, -1, np.ones(16), None])
def test_what_is_no_bits(value: Any) -> None:
    with pytest.raises(VectorError, match="its column has 16 bits"):
        as_bits(value, 16)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: embedding_column("a", encoder=H, metric="l1", index=IVFFlat()),
            "ivfflat has no.*l1.*HNSW",
        ),
        (
            lambda: embedding_column("a", encoder=H, metric=HAMMING),
            "does not compare vectors.*bit_column",
        ),
        (lambda: embedding_column("a", encoder=H, metric=NO), "unknown metric 'no'"),
        (lambda: bit_column(64, metric="jaccard", index=IVFFlat()), "ivfflat has no.*jaccard"),
        (lambda: bit_column(64, metric="cosine"), "does not compare bits: choose one of 'hamming', 'jaccard'"),  # type: ignore[arg-type]
        (lambda: bit_column(64_001), "1 to 64000 bits"),
        (lambda: bit_column(64, index=HNSW(cast="binary")), "indexed as they are"),
        (lambda: bit_column(64, index="hnsw"), "HNSW"),  # type: ignore[arg-type]
    ],
)
def test_what_pgvector_refuses_is_refused_first(make: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()


def test_every_pair_that_is_accepted_is_accepted_by_pgvector(module_engine: Engine) -> None:
    with module_engine.connect() as connection:
        for metric in METRICS.values():
            for storage, opclass in metric.opclass.items():
                for method in ("hnsw", "ivfflat"):
                    accepted = connection.scalar(
                        text(
                            "SELECT count(*) FROM pg_opclass o JOIN pg_am a ON a.oid = o.opcmethod "
                            "WHERE a.amname = :method AND o.opcname = :opclass AND o.opcintype = CAST(:type AS regtype)"
                        ),
                        {"method": method, "opclass": opclass, "type": storage},
                    )
                    assert bool(accepted) is (method == "hnsw" or metric.ivfflat), (metric.name, storage, method)


def test_a_migration_writes_the_type() -> None:
    assert repr(Picture.__table__.c.phash.type) == "BIT(64)"


def test_a_metric_that_the_index_does_not_serve() -> None:
    with pytest.raises(MetricMismatch, match="its index serves hamming"):
        Picture.phash.jaccard_distance("0" * 64)
    with pytest.raises(MetricMismatch, match="its index serves l1"):
        Picture.whole.cosine_distance("x")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async(pictures: Engine, driver: str) -> None:
    engine = create_async_engine(pictures.url.set(drivername=f"postgresql+{driver}"))
    async with async_sessionmaker(engine)() as session:
        rows = (await session.scalars(nearest(Picture.phash, BIT_ROWS[5]).limit(3))).all()
        assert rows[0].phash.tolist() == BIT_ROWS[rows[0].id].tolist()
        assert (BIT_ROWS[rows[0].id] == BIT_ROWS[5]).all()
    await engine.dispose()


@pytest.mark.parametrize("column", [Picture.phash, Picture.lists, Picture.features], ids=lambda each: each.key)
def test_recall_of_bits_is_measured(pictures: Engine, column: Any) -> None:
    with pictures.connect() as connection:
        fit = measure(connection, column, queries=15)
    assert fit.rows == ROWS
    assert 0.9 <= fit.recall <= 1
