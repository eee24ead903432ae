"""Searches in SQL under filters: every row that there is, and the right ones, wherever the filter's rows lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine

from embeddb.catalog.register import register_spec
from embeddb.orm import declared
from tests.catalog.application import Database
from tests.insql.shelf import remember
from tests.query.clusters import CLUSTER, CLUSTERS, QUERIES, QUERY_CLUSTER, REDUCED, ROWS, Base, Row, fill, nearest_ids

NUMBER = np.arange(ROWS)
WIDTH = CLUSTERS // 6
MODELS: list[Any] = [Row, REDUCED["binary"], REDUCED["ivfflat"]]


@pytest.fixture
def rows(catalog: Engine, db: Database) -> Iterator[Database]:
    """A table for each kind of index, and QUERIES remembered as texts."""
    with catalog.begin() as connection:
        fill(connection, *MODELS)
        names = [f"{model.__tablename__}.embedding" for model in MODELS]
        for declaration in declared(Base):
            if declaration.name in names:
                register_spec(connection, declaration.spec)
    for name in names:
        for number, query in enumerate(QUERIES):
            remember(db, f"query {number}", query, name)
    yield db
    db.execute("RESET ROLE; DROP OWNED BY tenant; DROP ROLE tenant")


def found(db: Database, model: Any, number: int, chosen: Any) -> list[int]:
    statement = "SELECT (key #>> '{}')::bigint FROM embeddb.search(%s, %s, 10, %s)"
    values = (f"{model.__tablename__}.embedding", f"query {number}", None if chosen is None else json.dumps(chosen))
    return [key for (key,) in db.execute(statement, values)]


def recall(db: Database, model: Any, chosen: Callable[[int], Any], among: Callable[[int], NDArray[np.bool_]]) -> float:
    """Of all queries; each must get as many rows as there are. The filter and its rows follow from its cluster."""
    hits = wanted = 0
    for number, query in enumerate(QUERIES):
        cluster = int(QUERY_CLUSTER[number])
        mask = among(cluster)
        truth = nearest_ids(query, among=mask)
        keys = found(db, model, number, chosen(cluster))
        assert len(keys) == len(truth)
        assert mask[keys].all()
        hits += len(set(keys) & set(truth))
        wanted += len(truth)
    return hits / wanted


def first(cluster: int) -> int:
    """The first of some clusters of which a query's own is none: a walk through the graph from the query finds few."""
    return (cluster + CLUSTERS // 2) % (CLUSTERS - WIDTH)


def away(cluster: int) -> dict[str, Any]:
    """The filter for them."""
    return {"cluster": {">=": first(cluster), "<": first(cluster) + WIDTH}}


def test_every_filter_is_filled_with_the_right_rows(rows: Database) -> None:
    at = {
        "all": recall(rows, Row, lambda c: {"tenth": {">=": 0}}, lambda c: NUMBER >= 0),
        "tenth": recall(rows, Row, lambda c: {"tenth": 3}, lambda c: NUMBER % 10 == 3),
        "hundredth": recall(rows, Row, lambda c: {"hundredth": [33, 34]}, lambda c: np.isin(NUMBER % 100, (33, 34))),
        "thousandth": recall(rows, Row, lambda c: {"thousandth": 333}, lambda c: NUMBER % 1000 == 333),
        "other clusters": recall(rows, Row, away, lambda c: np.isin(CLUSTER, range(first(c), first(c) + WIDTH))),
    }
    assert min(at.values()) >= 0.98, at
    assert found(rows, Row, 0, {"tenth": 77}) == []
    with pytest.raises(psycopg.Error, match="LIMIT must not be negative"):
        rows.execute("SELECT embeddb.search('row.embedding', 'query 0', -1, '{}')")
    for model in MODELS[1:]:
        assert recall(rows, model, lambda c: {"tenth": 3}, lambda c: NUMBER % 10 == 3) >= 0.9
    hidden_by_a_policy(rows)


def hidden_by_a_policy(db: Database) -> None:
    """Rows that the caller may not see are a filter too."""
    db.execute("CREATE ROLE tenant; GRANT SELECT ON row TO tenant; SELECT embeddb.grant_reader('tenant')")
    db.execute("ALTER TABLE row ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON row TO tenant USING (hundredth = 7)")
    db.execute("SET ROLE tenant")
    assert recall(db, Row, lambda c: None, lambda c: NUMBER % 100 == 7) >= 0.98
