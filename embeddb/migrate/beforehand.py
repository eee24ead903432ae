"""What autogenerate does before Alembic compares tables."""

from __future__ import annotations

from typing import Any

from alembic.operations import ops
from alembic.util import CommandError
from sqlalchemy import MetaData

from embeddb.errors import EmbeddbError
from embeddb.migrate.filters import Filters
from embeddb.naming import CATALOG
from embeddb.orm import declared


def prepare(context: Any, upgrade: ops.UpgradeOps, schemas: set[str | None]) -> Any:
    """Alembic's comparator, before its own: the catalog's tables need not even be reflected."""
    schemas.discard(CATALOG)
    filters = Filters(context)
    for metadata in metadatas(context):
        for declaration in declared(metadata):
            if filters.has_table(declaration.table) and filters.has_column(declaration.column):
                try:  # or Alembic runs into it as it writes the column's type
                    declaration.require_dim()
                except EmbeddbError as error:
                    raise CommandError(str(error)) from error
    return go_on()


def metadatas(context: Any) -> list[MetaData]:
    """The project's ``target_metadata``, which may be several."""
    metadata = context.metadata
    return list(metadata) if isinstance(metadata, list | tuple) else [metadata]


def go_on() -> Any:
    """What a comparator answers, for the next one to have its turn."""
    try:
        from alembic.util import PriorityDispatchResult
    except ImportError:
        return None
    return PriorityDispatchResult.CONTINUE
