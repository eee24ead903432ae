"""What a project leaves out of autogenerate by ``include_object`` and ``include_name``, where Alembic does not look."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, MetaData, Table
from sqlalchemy.types import NULLTYPE

from embeddb.migrate.found import FoundIndex


class Filters:
    """The filters of a project's ``context.configure``."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def has_table(self, table: Table) -> bool:
        """Is a table of the models to be compared?"""
        return self._passes(table, table.name, "table")

    def has_column(self, column: Column[Any]) -> bool:
        """Is a column of the models?"""
        return self._passes(column, column.name, "column")

    def has_index(self, index: Index) -> bool:
        """Is an index of the models?"""
        return self._passes(index, index.name, "index")

    def has_found(self, index: FoundIndex, schema: str | None, table: str) -> bool:
        """Is an index of the database that the models do not have?"""
        parents = {"schema_name": schema, "table_name": table}
        if not self._context.run_name_filters(index.name, "index", parents):
            return False
        column: Column[Any] = Column(index.column, NULLTYPE)
        Table(table, MetaData(), column, schema=schema)
        reflected = Index(index.name, column, postgresql_using=index.signature.method)
        return self._passes(reflected, index.name, "index", reflected=True)

    def _passes(self, item: Any, name: Any, kind: str, *, reflected: bool = False) -> bool:
        return bool(self._context.run_object_filters(item, name, kind, reflected, None))
