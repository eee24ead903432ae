"""Indexes that hold less than the vectors: candidates by the index, order by the vectors, under filters as without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, bindparam, text
from sqlalchemy.orm import Session

from embeddb import nearest
from embeddb.query.plan import explain
from tests.query.clusters import QUERIES, REDUCED, ROWS, VECTORS, fill, nearest_ids, through_index

NUMBER = np.arange(ROWS)


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    with module_engine.begin() as connection:
        fill(connection, *REDUCED.values())
    return module_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        yield session


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("name", REDUCED)
def test_recall_order_distances_and_plan(session: Session, name: str, filtered: bool) -> None:
    model = REDUCED[name]
    statement = nearest(model.embedding, bindparam("q"), distance=True, recall=0.99).limit(10)
    among = np.ones(ROWS, bool)
    if filtered:
        through_index(session)  # which for a table this small is not what pays
        statement = statement.where(model.tenth < 5)
        among = NUMBER % 10 < 5
    method = "ivfflat" if "ivfflat" in name else "hnsw"
    assert f"ix_row_{name}_embedding_{method}" in explain(session, statement, {"q": QUERIES[0]}).indexes
    hits = 0
    for query in QUERIES:
        rows = session.execute(statement, {"q": query}).all()
        found = [row[0].id for row in rows]
        assert len(found) == 10
        assert among[found].all()
        exact = 1 - VECTORS[found] @ query
        assert np.allclose([row.distance for row in rows], exact, atol=1e-6)
        assert (np.diff(exact) >= -1e-6).all()
        hits += len(set(found) & set(nearest_ids(query, among=among)))
    assert hits / (10 * len(QUERIES)) >= 0.96  # the graph is another one each time


def test_the_signs_of_few_dimensions_propose_more(session: Session) -> None:
    """Of 48 dimensions: with as many candidates as 384 need, .93 were found."""
    hits = 0
    for query in QUERIES:
        found = [row.id for row in session.scalars(nearest(REDUCED["binary_prefix"].embedding, query).limit(10))]
        hits += len(set(found) & set(nearest_ids(query)))
    assert hits / (10 * len(QUERIES)) >= 0.97


@pytest.mark.parametrize("limit", [1, 3, 300, 2000])
def test_a_limit_is_filled(session: Session, limit: int) -> None:
    """A scan of an HNSW index looks for a thousand rows at most at once: beyond that it goes on."""
    for name in ("binary", "prefix"):
        statement = nearest(REDUCED[name].embedding, QUERIES[1], recall=0.999).limit(limit)
        found = [row.id for row in session.scalars(statement)]
        assert len(found) == limit
        assert len(set(found) & set(nearest_ids(QUERIES[1], limit))) >= 0.95 * limit


def test_offset_counts(session: Session) -> None:
    model: Any = REDUCED["binary"]
    expected = nearest_ids(QUERIES[2], 15)
    found = [row.id for row in session.scalars(nearest(model.embedding, QUERIES[2], recall=0.999).offset(5).limit(10))]
    assert found == expected[5:]


def test_ivfflat_that_goes_on_is_in_order(session: Session) -> None:
    model: Any = REDUCED["ivfflat"]
    through_index(session)
    statement = nearest(model.embedding, QUERIES[3], distance=True, recall=0.9).limit(ROWS - 1000)
    assert "ix_row_ivfflat_embedding_ivfflat" in explain(session, statement).indexes
    distances = [row.distance for row in session.execute(statement)]
    assert len(distances) == ROWS - 1000
    assert distances == sorted(distances)


@pytest.mark.parametrize(("name", "held"), [("binary", "bits"), ("prefix", "first dimensions")])
def test_candidates_of_no_index_are_not_called_exact(engine: Engine, name: str, held: str) -> None:
    with Session(engine) as session:
        session.execute(text("SET LOCAL enable_indexscan = off"))
        words = explain(session, nearest(REDUCED[name].embedding, QUERIES[0]).limit(5)).words
    assert f"by no index, its rows are read all of them, and the nearest by their {held} ordered" in words
