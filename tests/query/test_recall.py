"""Recall that is asked for: measured on the rows, kept in the index, used by every search, and given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from embeddb import nearest
from embeddb.catalog.install import install
from embeddb.catalog.register import register_spec
from embeddb.cli.main import build
from embeddb.errors import QueryError
from embeddb.insight.recall import Fit, keep, measure, unmeasured
from embeddb.orm import declared
from tests.query.clusters import REDUCED, Base, Row, clustered, fill, nearest_ids

QUERIES, _ = clustered(100, seed=5)
BINARY: Any = REDUCED["binary"]
IVFFLAT: Any = REDUCED["ivfflat"]


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    with module_engine.begin() as connection:
        fill(connection, Row, BINARY, IVFFLAT)
    return module_engine


@pytest.fixture(scope="module")
def fits(engine: Engine) -> dict[Any, Fit]:
    """A fit of each table, kept."""
    found = {}
    with engine.connect() as connection:
        for model in (Row, BINARY, IVFFLAT):
            found[model] = measure(connection, model.embedding, queries=200)
            with connection.begin():
                assert keep(connection, found[model]) is False  # there is no catalog
    return found


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        yield connection


def recall(connection: Connection, model: Any, level: float | None, k: int = 10) -> float:
    with Session(connection) as session:
        hits = 0
        for query in QUERIES:
            found = session.scalars(nearest(model.embedding, query, recall=level).limit(k)).all()
            hits += len({row.id for row in found} & set(nearest_ids(query, k)))
    return hits / (k * len(QUERIES))


@pytest.mark.parametrize("model", [Row, BINARY, IVFFLAT], ids=lambda model: model.__tablename__)
def test_what_is_asked_is_given(connection: Connection, fits: dict[Any, Fit], model: Any) -> None:
    fit = fits[model]
    assert fit.setting == {Row: "ef_search", BINARY: "candidates", IVFFLAT: "probes"}[model]
    assert list(fit.efforts.values()) == sorted(fit.efforts.values())
    for level in (0.9, 0.95, 0.99):
        # Of 1000 neighbours, so give chance three standard errors of queries that fail as a whole.
        assert recall(connection, model, level) >= level - 0.05
    assert recall(connection, model, None) >= fit.target - 0.03
    assert recall(connection, model, 0.99, k=40) >= 0.97


def test_the_statement_uses_what_was_fitted(connection: Connection, fits: dict[Any, Fit]) -> None:
    fit = fits[Row]
    with Session(connection) as session:
        for level, expected in ((0.9, fit.efforts[0.9]), (0.93, fit.efforts[0.95]), (None, fit.effort)):
            session.scalars(nearest(Row.embedding, QUERIES[0], recall=level).limit(10)).all()
            assert session.scalar(text("SHOW hnsw.ef_search")) == str(expected)
        session.scalars(nearest(Row.embedding, QUERIES[0], recall=0.9).limit(30)).all()
        assert session.scalar(text("SHOW hnsw.ef_search")) == str(3 * fit.efforts[0.9])
        session.execute(text("COMMENT ON INDEX ix_row_embedding_hnsw IS 'what 0.95=a person wrote'"))
        session.scalars(nearest(Row.embedding, QUERIES[0], recall=0.95).limit(10)).all()
        assert session.scalar(text("SHOW hnsw.ef_search")) == "64"


def test_filters_are_searched_further_while_nothing_is_fitted(connection: Connection) -> None:
    connection.execute(text("COMMENT ON INDEX ix_row_embedding_hnsw IS NULL"))
    with Session(connection) as session:
        for filtered, expected in ((False, "64"), (True, "200")):
            session.scalars(nearest(Row.embedding, QUERIES[0], filtered=filtered).limit(10)).all()
            assert session.scalar(text("SHOW hnsw.ef_search")) == expected


def test_a_role_with_no_right_but_to_read_the_table_uses_it(connection: Connection, fits: dict[Any, Fit]) -> None:
    connection.execute(text("CREATE ROLE only_reads"))
    connection.execute(text("GRANT SELECT ON row TO only_reads"))
    connection.execute(text("SET LOCAL ROLE only_reads"))
    with Session(connection) as session:
        session.scalars(nearest(Row.embedding, QUERIES[0], recall=0.9).limit(10)).all()
        assert session.scalar(text("SHOW hnsw.ef_search")) == str(fits[Row].efforts[0.9])


def test_catalog_coverage_and_command(engine: Engine, fits: dict[Any, Fit]) -> None:
    seen = text("SELECT recall, recall_stale FROM embeddb.coverage WHERE embedding = 'row.embedding'")
    [spec] = [declaration.spec for declaration in declared(Base) if declaration.table.name == "row"]
    with engine.begin() as connection:
        install(connection)
        register_spec(connection, spec)
    with engine.connect() as connection:
        assert connection.execute(seen).one() == (None, None)
        assert "row.embedding" in unmeasured(connection)
        assert keep(connection, fits[Row])
        assert connection.execute(seen).one() == (fits[Row].recall, False)
        assert "row.embedding" not in unmeasured(connection)
        keep(connection, replace(fits[Row], rows=fits[Row].rows // 3))
        assert connection.execute(seen).one() == (fits[Row].recall, True)
        assert "row.embedding" in unmeasured(connection)
        assert keep(connection, fits[Row])
        connection.execute(text("REINDEX INDEX ix_row_embedding_hnsw"))
        assert connection.execute(seen).one() == (fits[Row].recall, False)
        built = connection.scalar(text("SELECT pg_get_indexdef('ix_row_embedding_hnsw'::regclass)"))
        connection.execute(text("DROP INDEX ix_row_embedding_hnsw"))
        assert connection.execute(seen).one() == (fits[Row].recall, True)
        connection.exec_driver_sql(built)
        assert connection.execute(seen).one() == (fits[Row].recall, True)
        assert "row.embedding" in unmeasured(connection)
        connection.rollback()
    url = engine.url.render_as_string(hide_password=False)
    arguments = ["recall", "row.embedding", "--target", "0.93", "--queries", "30", "--url", url]
    result = CliRunner().invoke(build(), arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    assert "0.93 (default)" in result.output
    with engine.connect() as connection:
        measured, stale = connection.execute(seen).one()
        assert 0.92 <= measured <= 1
        assert stale is False
        comment = connection.scalar(text("SELECT obj_description('ix_row_embedding_hnsw'::regclass)"))
        assert comment.startswith("embeddb recall@10: 0.9=")


@pytest.mark.parametrize("asked", [0, 1, 1.5, -0.1, math.nan, "0.9"])
def test_what_is_no_recall(engine: Engine, asked: Any) -> None:
    with pytest.raises(QueryError, match=r"at most 0\.999"):
        nearest(Row.embedding, "x", recall=asked)
    with engine.connect() as connection, pytest.raises(QueryError, match=r"at most 0\.999"):
        measure(connection, Row.embedding, target=asked)


def test_what_cannot_be_measured(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(QueryError, match="k is between"):
            measure(connection, Row.embedding, k=0)
        with pytest.raises(QueryError, match="has no index .*ix_row_prefix_embedding_hnsw"):
            measure(connection, REDUCED["prefix"].embedding)
