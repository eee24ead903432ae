"""A connection that comes back: work that was cut off is done again when the server is there again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import psycopg
from psycopg import Connection
from sqlalchemy import URL, Engine, make_url

from embeddb.queue import prepare

log = logging.getLogger("embeddb.worker")

P = ParamSpec("P")
T = TypeVar("T")
Connect = Callable[[], Connection[Any]]

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


class Stopped(Exception):
    """The worker was told to stop while it waited for the database."""


def connector(bind: Engine | URL | str) -> Connect:
    """How to open psycopg connections to where ``bind`` leads.

    An engine over psycopg opens them itself, so its ``connect_args`` and events hold; of any other only the URL is
    used.
    """
    if isinstance(bind, Engine) and bind.dialect.driver == "psycopg" and not bind.dialect.is_async:
        return lambda: _of_engine(bind)
    url = bind.url if isinstance(bind, Engine) else make_url(bind)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return lambda: psycopg.connect(dsn, autocommit=True)


def _of_engine(engine: Engine) -> Connection[Any]:
    pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()
    connection.autocommit = True
    return connection  # type: ignore[no-any-return]


class Session:
    """One connection of a worker, in autocommit, for one thread."""

    def __init__(self, connect: Connect, stop: threading.Event, patience: float | None = None) -> None:
        self._connect, self._stop, self._patience = connect, stop, patience
        self._connection: Connection[Any] | None = None

    def open(self) -> None:
        """Connect now; what is wrong at the first time is not waited for."""
        connection = self._connect()
        prepare(connection)
        self._connection = connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, work: Callable[Concatenate[Connection[Any], P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` with the connection and the arguments, and again where the server or the moment was at fault.

        It must bear being done twice: a commit whose answer was lost may have happened. Raises Stopped where the
        worker is told to stop before the server is back, and the last error when patience is at its end.
        """
        since, wait = time.monotonic(), _FIRST_WAIT
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self.open()
                assert self._connection is not None
                return work(self._connection, *args, **kwargs)
            except psycopg.OperationalError as error:
                # The server is away, or a deadlock, a timeout, a lock: all of them pass.
                if self._connection is not None and self._connection.broken:
                    self.close()
                if self._patience is not None and time.monotonic() - since > self._patience:
                    raise
                log.warning("the database: %s; trying again in %.1f s", str(error).strip(), wait)
                if self._stop.wait(wait):
                    raise Stopped from error
                wait = min(wait * 2, _LONGEST_WAIT)
