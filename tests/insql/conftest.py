"""Fixtures: a database a version with the catalog in it, and a real and some tiny models to install there."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from embeddb.catalog.install import install
from embeddb.encoders import SentenceTransformer
from embeddb.insql import install_transformer
from embeddb.local import LocalPostgres
from tests.catalog.application import connect
from tests.catalog.databases import catalog, db
from tests.conftest import fresh_database
from tests.insql.small_models import Models

__all__ = ["catalog", "db"]


@dataclass(frozen=True)
class InSQL:
    """A database with the catalog, and all-MiniLM-L6-v2 installed in it."""

    engine: Engine
    db: psycopg.Connection[Any]
    encoder: SentenceTransformer


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformer:
    importlib.import_module("torch").set_num_threads(2)
    return SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True, device="cpu")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Tiny models with random weights, made when they are asked for."""
    return Models(tmp_path_factory.mktemp("models"))


def _database(server: LocalPostgres, encoder: SentenceTransformer) -> Iterator[InSQL]:
    with fresh_database(server) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            install(connection)
            install_transformer(connection, encoder, name="minilm")
        with connect(engine) as db:
            yield InSQL(engine, db, encoder)
        engine.dispose()


@pytest.fixture(scope="session")
def insql18(server18: LocalPostgres, minilm: SentenceTransformer) -> Iterator[InSQL]:
    yield from _database(server18, minilm)


@pytest.fixture(scope="session")
def insql16(server16: LocalPostgres, minilm: SentenceTransformer) -> Iterator[InSQL]:
    yield from _database(server16, minilm)


@pytest.fixture(params=[16, 18], ids=["pg16", "pg18"])
def insql(request: pytest.FixtureRequest) -> InSQL:
    """On both versions in turn."""
    found: InSQL = request.getfixturevalue(f"insql{request.param}")
    return found


@pytest.fixture(scope="session")
def questions(shared_data: Path) -> list[str]:
    """The 225 questions of Cranfield."""
    text = (shared_data / "cranfield" / "cran.qry").read_text()
    return [" ".join(part.split(".W", 1)[1].split()) for part in text.split(".I ")[1:]]
