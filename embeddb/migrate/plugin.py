"""Alembic's own entry point, and the way in for versions of Alembic that have none.

Alembic 1.18 and later load plug-ins while they are being imported themselves. So this module imports nothing of Alembic
at its top, and nothing here imports a package of Alembic's, only modules in it.
"""

from __future__ import annotations

import functools
from typing import Any, Final

#: Alembic runs the comparators of plug-ins called ``alembic.autogenerate.*`` unless it is told otherwise; of any other
#: it must be told, in every ``env.py``. ``autogenerate_plugins=[…, "~alembic.autogenerate.embeddb"]`` turns these off.
NAME: Final = "alembic.autogenerate.embeddb"


def setup(plugin: Any) -> None:
    """Called by Alembic 1.18 and later, which finds this module by its entry point."""
    from alembic.util import DispatchPriority

    add_operations()
    named = type(plugin)(NAME)
    named.add_autogenerate_comparator(_before, "schema", "embeddb", priority=DispatchPriority.FIRST)
    # After the tables, columns and indexes that Alembic compares itself: what it found there is put right.
    named.add_autogenerate_comparator(_after, "schema", "embeddb", priority=DispatchPriority.LAST)


@functools.cache
def setup_without_plugins() -> None:
    """The same for earlier versions, where comparators run in the order in which they were added."""
    add_operations()
    try:
        from alembic.runtime import plugins  # noqa: F401
    except ImportError:
        from alembic.autogenerate import comparators

        comparators.dispatch_for("schema")(_after)


def add_operations() -> None:
    """Add the operations to ``op``, and how they are run and written down. Importing their modules does it."""
    from embeddb.migrate import (  # noqa: F401
        catalog_operations,
        column_operations,
        embedding_operations,
        encoder_operations,
        history_operations,
        index_operations,
        reembed_operations,
        rename_operations,
    )


def _before(context: Any, upgrade: Any, schemas: set[str | None]) -> Any:
    from embeddb.migrate.beforehand import prepare

    return prepare(context, upgrade, schemas)


def _after(context: Any, upgrade: Any, schemas: set[str | None]) -> Any:
    from embeddb.migrate.compare import compare

    return compare(context, upgrade, schemas)
