"""``within``: complete, ordered and streamed; and what its index scan finds of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, aliased

from embeddb.errors import QueryError
from embeddb.query.embedding import AnyEmbedding
from embeddb.query.scan import MARGIN
from embeddb.query.within import within
from tests.query.items import HASHING, ROWS, VECTORS, Half, Item, Pair, distances, plan

MODELS: dict[str, tuple[type[Any], AnyEmbedding]] = {
    "cosine": (Item, Item.embedding),
    "l2": (Half, Half.embedding),
    "inner_product": (Pair, Pair.vector),
}


def number(row: Any) -> int:
    return row.left * 10 + int(row.right) if isinstance(row, Pair) else int(row.id)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, ROWS - 1), rank=st.integers(0, ROWS - 2), metric=st.sampled_from(sorted(MODELS)))
def test_complete_and_ordered(session: Session, at: int, rank: int, metric: str) -> None:
    exact = np.sort(distances(metric, VECTORS, VECTORS[at]))
    bound = float(exact[rank : rank + 2].mean())  # between two rows
    rows = session.execute(within(MODELS[metric][1], VECTORS[at], distance=bound)).all()
    found = distances(metric, VECTORS, VECTORS[at])
    doubtful = np.abs(found - bound) <= (1e-6 if metric == "cosine" else 5e-3 * max(1, abs(bound)))  # half precision
    expected = set(np.flatnonzero((found <= bound) & ~doubtful).tolist())
    got = {number(row[0]) for row in rows}
    assert expected <= got <= expected | set(np.flatnonzero(doubtful).tolist())
    assert len(got) == len(rows)
    assert (np.diff([row.distance for row in rows]) >= 0).all()


@pytest.mark.parametrize("metric", MODELS)
@pytest.mark.parametrize("rows_within", [1, 30, 300, 1500])
def test_through_the_index(session: Session, metric: str, rows_within: int) -> None:
    hits = wanted = 0
    for at in (3, 700, 2999):
        exact = np.sort(distances(metric, VECTORS, VECTORS[at]))
        bound = float(exact[rows_within - 1 : rows_within + 1].mean())
        complete = session.execute(within(MODELS[metric][1], VECTORS[at], distance=bound)).all()
        statement = within(MODELS[metric][1], VECTORS[at], distance=bound, exact=False)
        rows = session.execute(statement).all()
        assert {number(row[0]) for row in rows} <= {number(row[0]) for row in complete}
        assert (np.diff([row.distance for row in rows]) >= 0).all()
        hits, wanted = hits + len(rows), wanted + len(complete)
        shown = plan(session, statement)
        assert "_hnsw" in shown
        assert "Run Condition: (count(*) FILTER" in shown
    # The graph is made for distances; by inner product some rows are nobody's neighbours.
    assert hits >= (0.9 if metric == "inner_product" else 0.98) * wanted


def test_an_index_scan_stops_beyond_the_radius(session: Session) -> None:
    near = float(np.sort(distances("cosine", VECTORS, VECTORS[3]))[20])
    statement = within(Item.embedding, VECTORS[3], distance=near, exact=False)
    shown = plan(session, statement, "ANALYZE, TIMING OFF")
    scanned = re.search(r"Index Scan using ix_item_embedding_hnsw.*actual rows=(\d+)", shown)
    assert scanned is not None
    assert 21 + MARGIN <= int(scanned[1]) <= 21 + MARGIN + 5


def test_an_index_scan_that_ends_early(session: Session) -> None:
    copies = VECTORS[3] + 4  # far from the rest, so that a search may end among them
    numbers = range(2 * ROWS, 2 * ROWS + 500)
    session.execute(insert(Item), [{"id": n, "cat": 1, "title": "copy", "embedding": copies} for n in numbers])
    # Nothing is beyond this radius, so the scan ends without having seen its margin, wherever the graph has let it go.
    found = session.execute(within(Item.embedding, copies, distance=2.0, exact=False)).all()
    assert len({row[0].id for row in found}) == len(found) == ROWS + 500
    session.rollback()


def test_by_score_text_filter_and_limit(session: Session) -> None:
    query = HASHING.encode_queries(["row 7"])[0]
    scores = 1 - distances("cosine", VECTORS, query)
    expected = [int(n) for n in np.argsort(-scores) if scores[n] >= 0.3 and n % 500 < 250]
    assert len(expected) > 20
    for exact in (True, False):
        statement = within(Item.embedding, "row 7", score=0.3, exact=exact).where(Item.cat < 250)
        rows = session.execute(statement).all()
        if exact:
            assert [row[0].id for row in rows] == expected
        assert np.allclose([row.score for row in rows], scores[[row[0].id for row in rows]], atol=1e-5)
        assert [row.id for row in session.scalars(statement.limit(5))] == expected[:5]
    other = aliased(Item)
    assert len(session.scalars(within(other.embedding, "row 7", score=0.3).where(other.cat < 250)).all()) == len(
        expected
    )
    core = within(Item.__table__.c.embedding, "row 7", score=0.3).where(Item.__table__.c.cat < 250)
    assert [row.id for row in session.connection().execute(core)] == expected


def test_streams(session: Session, items_engine: Engine) -> None:
    fetched: list[str] = []

    def note(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if "FROM item" in statement:  # the session may also ask which encoder serves
            fetched.append(type(cursor).__name__)

    event.listen(items_engine, "before_cursor_execute", note)
    try:
        result = session.execute(within(Item.embedding, VECTORS[0], distance=2.0).execution_options(yield_per=500))
        sizes = [len(part) for part in result.partitions()]
    finally:
        event.remove(items_engine, "before_cursor_execute", note)
    assert sizes == [500] * 6
    assert fetched == ["ServerCursor"]


async def test_streams_in_an_async_session(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url)
    async with async_sessionmaker(engine)() as session:
        statement = within(Item.embedding, "row 7", score=-1.0).execution_options(yield_per=700)
        seen = [row[0].id async for row in await session.stream(statement)]
    await engine.dispose()
    assert len(set(seen)) == ROWS


def test_one_compilation_for_every_bound(session: Session, items_engine: Engine) -> None:
    for exact in (True, False):
        session.execute(within(Item.embedding, "warm", score=0.9, exact=exact)).all()
    cached = len(items_engine._compiled_cache or ())
    for exact in (True, False):
        for tenth in range(5, 10):
            session.execute(within(Item.embedding, f"row {tenth}", score=tenth / 10, exact=exact)).all()
    assert len(items_engine._compiled_cache or ()) == cached


@pytest.mark.parametrize(
    "options", [{}, {"distance": 1.0, "score": 0.5}, {"distance": float("nan")}, {"distance": "x"}]
)
def test_what_is_refused(options: Any) -> None:
    with pytest.raises(QueryError, match="distance"):
        within(Item.embedding, "x", **options)


def test_the_rows_found_are_looked_up_and_no_others(items_engine: Engine) -> None:
    with Session(items_engine) as session:
        shown = plan(session, within(Item.embedding, VECTORS[3], distance=0.1, exact=False))
    assert re.search(r"Index Scan using item_pkey on public\.item\b", shown)
