"""On a hot standby, where nothing can be written: not even what a function would like to remember."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from embeddb.local import LocalPostgres
from tests.catalog.application import Database
from tests.insql.shelf import QUERY, shelve


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for a socket's path, and of the user that the server runs as."""
    made = Path(tempfile.mkdtemp(prefix="standby-"))
    if os.geteuid() == 0:
        shutil.chown(made, "pgserver")
    yield made
    shutil.rmtree(made)


def test_all_searches_work(server: LocalPostgres, catalog: Engine, db: Database, folder: Path) -> None:
    shelf = shelve(catalog, db, rows=100)
    user = "pgserver" if os.geteuid() == 0 else None

    def run(program: str, *options: str) -> None:
        command = [str(server.programs / program), *options]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    host = str(catalog.url.query["host"])
    run("pg_basebackup", "-h", host, "-U", "postgres", "-D", str(folder / "data"), "-R", "-c", "fast")
    pg_ctl = ("-D", str(folder / "data"), "-w", "-l", str(folder / "log"))
    run("pg_ctl", *pg_ctl, "-o", f"-k {folder} -c listen_addresses=", "start")
    try:
        with psycopg.connect(shelf.db.info.dsn, host=str(folder), autocommit=True) as standby:
            assert standby.execute("SELECT pg_is_in_recovery()").fetchall() == [(True,)]
            for call in (
                f"articles_search('{QUERY}')",
                "articles_similar(1)",
                f"articles_hybrid('{QUERY}')",
                f"embeddb.search('articles.embedding', '{QUERY}')",
                "embeddb.neighbors('articles.embedding', '1')",
                "embeddb.duplicates('articles.embedding', 0.5)",
                f"embeddb.classify('articles.embedding', 'kind', '{QUERY}')",
                "embeddb.cluster('articles.embedding', 3)",
                "embeddb.coverage",
            ):
                statement = f"SELECT * FROM {call} AS c ORDER BY c::text"
                found = standby.execute(statement).fetchall()
                assert found, call
                assert call == "embeddb.coverage" or found == shelf.rows(statement), call
            ordered = (
                f"SELECT id FROM articles ORDER BY embedding <=> embeddb.embed('articles.embedding', '{QUERY}') LIMIT 3"
            )
            assert [key for (key,) in standby.execute(ordered).fetchall()] == shelf.nearest(3)
    finally:
        run("pg_ctl", *pg_ctl, "-m", "immediate", "stop")
