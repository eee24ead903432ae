"""Running an encoder where it must not hold up an event loop.

An AsyncSession runs SQLAlchemy's synchronous code in a greenlet on the event loop's own thread. Encoding there
would stop every other task, so it goes to a thread and the greenlet waits for it as it waits for the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.util.concurrency import await_only, in_greenlet

P = ParamSpec("P")
T = TypeVar("T")


def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function``: in a thread if this is an async session's greenlet, else right here."""
    if in_greenlet():
        return await_only(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)
