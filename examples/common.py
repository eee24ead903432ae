"""What the examples share: a database that is gone afterwards, and figures beside their controls."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

import embeddb

# All networks here are tiny: several threads would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Figure(NamedTuple):
    """How good it is, from 0 to 1, beside the same of something simpler, measured on the same rows."""

    what: str
    value: float
    control: float
    against: str


@contextmanager
def server(url: str | None) -> Iterator[URL]:
    """The Postgres at ``url``; without one, a new one in a temporary folder, stopped at the end."""
    if url:
        given = make_url(url)
        yield given.set(drivername="postgresql+psycopg") if given.drivername == "postgresql" else given
    else:
        with embeddb.LocalPostgres() as local:
            yield make_url(local.url)


@contextmanager
def database(base: type[DeclarativeBase], url: str | None) -> Iterator[sessionmaker[Session]]:
    """Sessions over a new database with the tables of ``base``, dropped at the end.

    ``url``: of a Postgres with pgvector, by a role that may create databases; None starts one.
    """
    name = f"embeddb_example_{uuid.uuid4().hex[:8]}"
    with server(url) as given:
        dsn = given.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(dsn, autocommit=True) as outside:
            outside.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            engine = create_engine(given.set(database=name))
            try:
                with engine.begin() as connection:
                    connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
                base.metadata.create_all(engine)
                sessions = sessionmaker(engine)
                embeddb.install(sessions)
                yield sessions
            finally:
                engine.dispose()
                outside.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def engine_of(sessions: sessionmaker[Session]) -> Engine:
    """The engine that the sessions use."""
    engine = sessions.kw["bind"]
    assert isinstance(engine, Engine)
    return engine


def run(main: Callable[[str | None], Sequence[Figure]]) -> None:
    """Call ``main`` with the URL of the command line, and print its figures."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a Postgres with pgvector; by default one is started in a temporary folder")
    figures = main(parser.parse_args().url)
    print()
    for figure in figures:
        print(f"{figure.what}: {figure.value:.2f} ({figure.against}: {figure.control:.2f})")
