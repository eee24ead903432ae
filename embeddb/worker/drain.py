"""``drain``: embed everything that is queued, in this process, for scripts and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from embeddb.orm import declared
from embeddb.queue import Settled
from embeddb.worker.options import Options
from embeddb.worker.totals import Totals
from embeddb.worker.worker import Worker


def drain(
    engine: Engine,
    base: Any = None,
    *,
    names: Collection[str] | None = None,
    progress: Callable[[Totals], None] | None = None,
    options: Options | None = None,
) -> Totals:
    """Embed every queued row, and return when nothing is queued any more: how many rows, and how many failed.

    ``base``: a declarative base, registry or MetaData: only its embeddings, with the encoder objects that it
    declares. Without it all registered embeddings, by their configuration in the catalog. ``names``: only these.
    Rows that are to be retried later are waited for; rows that cannot be embedded become recorded failures, and
    raise nothing. Raises EncoderError where an encoder cannot be loaded, and CatalogMissing.
    """
    declarations = [] if base is None else declared(base)
    if base is not None and names is None:
        names = [declaration.name for declaration in declarations]
    options = options or Options(reconnect=30.0)

    def observe(_name: str, _settled: Settled, _seconds: float, _rows: int) -> None:
        if progress is not None:
            progress(worker.totals)

    worker = Worker(
        engine,
        names=names,
        encoders=[declaration.encoder for declaration in declarations],
        options=options,
        observer=observe,
    )
    return worker.run(once=True)


async def drain_async(
    engine: AsyncEngine,
    base: Any = None,
    *,
    names: Collection[str] | None = None,
    progress: Callable[[Totals], None] | None = None,
    options: Options | None = None,
) -> Totals:
    """``drain`` beside an event loop: it works in threads, over psycopg connections to the engine's URL."""
    return await asyncio.to_thread(drain, engine.sync_engine, base, names=names, progress=progress, options=options)
