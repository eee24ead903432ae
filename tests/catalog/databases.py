"""Fixtures: a database with the catalog in it, emptied after each test, on Postgres 16 and 18 in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from embeddb.catalog.install import install
from tests.catalog.application import ARTICLES, Database, connect, register


@pytest.fixture(scope="module")
def catalog(module_engine: Engine) -> Engine:
    """One database a module, with the catalog installed."""
    with module_engine.begin() as connection:
        install(connection)
    return module_engine


@pytest.fixture
def db(catalog: Engine) -> Iterator[Database]:
    """A connection to it; tables, registrations and jobs go after each test."""
    with connect(catalog) as db:
        yield db
    with connect(catalog) as db:
        db.execute("SET client_min_messages = warning")
        db.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding")
        db.execute("DELETE FROM embeddb.worker")
        for (table,) in db.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall():
            db.execute("DROP TABLE IF EXISTS " + table + " CASCADE")


@pytest.fixture
def articles(db: Database) -> Database:
    """With the table `articles`, its embedding registered."""
    db.execute(ARTICLES)
    register(db)
    return db
