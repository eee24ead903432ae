"""``embedding_mode``: inline or queued for a block of code, whatever the declaration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy.orm import Mapper

from embeddb.errors import DeclarationError
from embeddb.orm.declaration import Declaration, declarations_of
from embeddb.orm.serving import serves_other
from embeddb.orm.settings import Settings
from embeddb.spec import MODES, Mode

_override: ContextVar[Mode | None] = ContextVar("embeddb_mode", default=None)


@contextmanager
def embedding_mode(mode: Mode) -> Iterator[None]:
    """Within the block, every flush and statement embeds ``inline`` or leaves the rows to the queue.

    Holds for this thread or task only, and nests. What counts is when rows are flushed: where a block's end commits,
    this is the outer one, ``with embedding_mode("queued"), Session.begin() as session``.
    """
    if mode not in MODES:
        raise DeclarationError(f"an embedding mode is one of {', '.join(map(repr, MODES))}, not {mode!r}")
    token = _override.set(mode)
    try:
        yield
    finally:
        _override.reset(token)


def current_mode(settings: Settings) -> Mode:
    """The mode in force: the innermost block's, or else the declared one.

    What another encoder than the declared one serves is left to the queue, whose workers have that one.
    """
    return "queued" if serves_other(settings) else _override.get() or settings.mode


def inline(mapper: Mapper[Any]) -> list[Declaration]:
    """The declarations of a mapped class whose rows are embedded as they are written."""
    return [found for found in declarations_of(mapper) if current_mode(found.settings) == "inline"]
