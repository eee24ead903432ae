"""A line in the log for each search: ``log_plans(engine)``, and the logger ``embeddb.query`` at DEBUG."""

from __future__ import annotations

import logging
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from embeddb.query.plan import explain_sql, savepoint
from embeddb.query.reasons import searches

logger: Final = logging.getLogger("embeddb.query")
_EVENT: Final = "after_cursor_execute"


def log_plans(engine: Engine | AsyncEngine) -> None:
    """Log how each search of this engine is served: which index, ef_search, iterative scan, or why none.

    Each statement that searches is explained after it ran, in its transaction, below a savepoint: two EXPLAINs and a
    look at the catalog, and only while ``logging.getLogger("embeddb.query")`` is enabled for DEBUG. Without this call
    there is no hook at all, and with it one that costs other statements a microsecond. ``unlog_plans`` undoes it.
    """
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if not event.contains(target, _EVENT, _log):
        event.listen(target, _EVENT, _log)


def unlog_plans(engine: Engine | AsyncEngine) -> None:
    """Undo ``log_plans``."""
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if event.contains(target, _EVENT, _log):
        event.remove(target, _EVENT, _log)


_searching: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _log(connection: Connection, cursor: Any, sql: str, parameters: Any, context: Any, executemany: bool) -> None:
    compiled = getattr(context, "compiled", None)
    if compiled is None or executemany or not logger.isEnabledFor(logging.DEBUG):
        return
    found = _searching.get(compiled)
    if found is None:
        found = _searching[compiled] = compiled.statement is not None and searches(compiled.statement)
    if not found:
        return
    try:
        with savepoint(connection):  # whatever happens here is none of the caller's concern
            plan = explain_sql(connection, sql, parameters, compiled.statement)
    except DBAPIError as error:
        logger.debug("a search that cannot be explained: %s", error.orig)
    else:
        logger.debug("%s", "; ".join(map(str, plan.reasons)) or plan.words)
