"""One filled database for the tests of a module, on both versions of Postgres in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from embeddb import install
from tests.query import items


@pytest.fixture(scope="module")
def items_engine(module_engine: Engine) -> Engine:
    """An engine on a database with the tables of ``items``."""
    items.fill(module_engine)
    return module_engine


@pytest.fixture
def session(items_engine: Engine) -> Iterator[Session]:
    """A session that is rolled back, and that prefers indexes."""
    factory = sessionmaker(items_engine)
    install(factory)
    with factory() as session:
        items.prefer_indexes(session)
        yield session
