"""A second connection that tells how far the build of an index is, while the first one waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, text

from embeddb.catalog.indexes import Build, read_builds

#: Seconds that the second connection may take to come about.
_PATIENCE: Final = 10


@contextmanager
def watching(connection: Connection, tell: Callable[[Build], None], *, interval: float) -> Iterator[None]:
    """Call ``tell`` every ``interval`` seconds, from a thread, with what ``connection`` is building meanwhile.

    A build that is over sooner costs nothing: the thread connects when the first interval has passed. Where it cannot
    connect, or loses the server, nothing is told; the build does not suffer.
    """
    pid = connection.scalar(text("SELECT pg_catalog.pg_backend_pid()"))
    conninfo = _conninfo(connection)
    over = threading.Event()

    def watch() -> None:
        if over.wait(interval):
            return
        try:
            with psycopg.connect(conninfo, autocommit=True, connect_timeout=_PATIENCE) as second:
                while not over.is_set():
                    for build in read_builds(second, pid):
                        tell(build)
                    over.wait(interval)
        except psycopg.Error:
            return  # progress is for those who wait: without it the build goes on as well

    thread = threading.Thread(target=watch, name="embeddb-build-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _conninfo(connection: Connection) -> str:
    """Where a connection leads, with what it has logged in by; of other drivers than psycopg, what the URL says."""
    driven: Any = connection.connection.driver_connection
    info = getattr(driven, "info", None)
    if isinstance(info, psycopg.ConnectionInfo):
        return make_conninfo(**info.get_parameters(), password=info.password or None)
    return connection.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
