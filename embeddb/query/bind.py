"""What reads a database takes a session, a connection or an engine: here each becomes a connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session

from embeddb.errors import QueryError

Bind = Session | scoped_session[Any] | Connection | Engine


@contextmanager
def connected(bind: Bind, what: str) -> Iterator[Connection]:
    """The session's connection, the one that is given, or one of the engine's. ``what``: who asks, for the error."""
    if isinstance(bind, Session | scoped_session):
        yield bind.connection()
    elif isinstance(bind, Engine):
        with bind.connect() as connection:
            yield connection
    elif isinstance(bind, Connection):
        yield bind
    else:
        raise QueryError(
            f"{what} takes a session, a connection or an engine, not {type(bind).__name__}: where that is async, "
            f"await session.run_sync({what}, …)"
        )
