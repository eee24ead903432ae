"""Real servers for the tests: embedded Postgres 16 and 18, and a fresh database for whoever asks."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from embeddb.local import LocalPostgres

os.umask(0o022)  # run by root, the servers are another user's, who has to read what the tests write
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core has a process of pytest-xdist's

TEMPLATE = "embeddb_template"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is converted for the tests is not left in the user's cache, nor found there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDDB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@contextmanager
def _server(version: int) -> Iterator[LocalPostgres]:
    with LocalPostgres(version=version) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        with psycopg.connect(server.dsn, dbname=TEMPLATE, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        yield server


@pytest.fixture(scope="session")
def server18() -> Iterator[LocalPostgres]:
    """Postgres 18, for tests where one version is enough."""
    with _server(18) as server:
        yield server


@pytest.fixture(scope="session")
def server16() -> Iterator[LocalPostgres]:
    """Postgres 16."""
    with _server(16) as server:
        yield server


@pytest.fixture(scope="session", params=[16, 18], ids=["pg16", "pg18"])
def server(request: pytest.FixtureRequest) -> LocalPostgres:
    """Both versions, in turn."""
    found: LocalPostgres = request.getfixturevalue(f"server{request.param}")
    return found


@contextmanager
def fresh_database(server: LocalPostgres) -> Iterator[URL]:
    """A new database with pgvector in it, dropped at the end, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
        )
        yield make_url(server.url).set(database=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def url(server: LocalPostgres) -> Iterator[URL]:
    """A fresh database, on both versions in turn."""
    with fresh_database(server) as url:
        yield url


@pytest.fixture
def url18(server18: LocalPostgres) -> Iterator[URL]:
    """A fresh database on Postgres 18."""
    with fresh_database(server18) as url:
        yield url


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine18(url18: URL) -> Iterator[Engine]:
    engine = create_engine(url18)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def module_engine(server: LocalPostgres) -> Iterator[Engine]:
    """One database for all tests of a module, on both versions in turn."""
    with fresh_database(server) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
async def async_engine18(url18: URL) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url18)
    yield engine
    await engine.dispose()


@pytest.fixture
def connection(url: URL) -> Iterator[psycopg.Connection]:
    """A plain psycopg connection in autocommit mode, on both versions in turn."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout. A test that needs it is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data is not beside this checkout")
    return folder
