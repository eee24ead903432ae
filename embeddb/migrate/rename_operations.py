"""``op.rename_embedded_table`` and ``op.rename_embedded_column``: names change, vectors and registrations stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation
from psycopg import sql

from embeddb.migrate.render import call
from embeddb.migrate.script import place, qualified, run


class _Rename(MigrateOperation):
    """``indexes``: the vector indexes that are called after what is renamed, old names to new ones."""

    def __init__(self, schema: str | None, indexes: Mapping[str, str]) -> None:
        self.schema, self.indexes = schema, indexes

    @property
    def _indexes_before(self) -> dict[str, str]:
        return {new: old for old, new in self.indexes.items()}


@Operations.register_operation("rename_embedded_table")
class RenameEmbeddedTableOp(_Rename):
    """Rename a table that has embeddings."""

    def __init__(self, table: str, new_table: str, schema: str | None, indexes: Mapping[str, str]) -> None:
        super().__init__(schema, indexes)
        self.table, self.new_table = table, new_table

    @classmethod
    def rename_embedded_table(
        cls,
        operations: Operations,
        table: str,
        new_table: str,
        *,
        schema: str | None = None,
        indexes: Mapping[str, str] | None = None,
    ) -> Any:
        """Rename a table that has embeddings, its functions for searching, and, of ``indexes``, old names to new."""
        return operations.invoke(cls(table, new_table, schema, indexes or {}))

    def reverse(self) -> RenameEmbeddedTableOp:
        """The opposite."""
        return RenameEmbeddedTableOp(self.new_table, self.table, self.schema, self._indexes_before)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("rename_embedded_table", self.schema, self.table, self.new_table)


@Operations.register_operation("rename_embedded_column")
class RenameEmbeddedColumnOp(_Rename):
    """Rename the column of an embedding, or one of its sources."""

    def __init__(
        self, table: str, column: str, new_column: str, schema: str | None, indexes: Mapping[str, str]
    ) -> None:
        super().__init__(schema, indexes)
        self.table, self.column, self.new_column = table, column, new_column

    @classmethod
    def rename_embedded_column(
        cls,
        operations: Operations,
        table: str,
        column: str,
        new_column: str,
        *,
        schema: str | None = None,
        indexes: Mapping[str, str] | None = None,
    ) -> Any:
        """Rename the column of an embedding, or one of its sources, with its triggers and functions.

        ``indexes``: vector indexes that are called after it, old names to new ones.
        """
        return operations.invoke(cls(table, column, new_column, schema, indexes or {}))

    def reverse(self) -> RenameEmbeddedColumnOp:
        """The opposite."""
        return RenameEmbeddedColumnOp(self.table, self.new_column, self.column, self.schema, self._indexes_before)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("rename_embedded_column", self.schema, self.table, self.column, self.new_column)


@Operations.implementation_for(RenameEmbeddedTableOp)
def _rename_table(operations: Operations, operation: RenameEmbeddedTableOp) -> None:
    names = (place(operation.table, operation.schema), sql.Identifier(operation.new_table))
    run(operations, sql.SQL("ALTER TABLE {} RENAME TO {}").format(*names).as_string(None))
    _follow(operations, operation, operation.new_table)


@Operations.implementation_for(RenameEmbeddedColumnOp)
def _rename_column(operations: Operations, operation: RenameEmbeddedColumnOp) -> None:
    names = [sql.Identifier(name) for name in (operation.column, operation.new_column)]
    statement = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
    run(operations, statement.format(place(operation.table, operation.schema), *names).as_string(None))
    _follow(operations, operation, operation.table)


def _follow(operations: Operations, operation: _Rename, table: str) -> None:
    """Indexes, triggers and functions that are called after what was renamed."""
    for old, new in operation.indexes.items():
        names = (place(old, operation.schema), sql.Identifier(new))
        run(operations, sql.SQL("ALTER INDEX {} RENAME TO {}").format(*names).as_string(None))
    refresh = sql.SQL("SELECT embeddb.refresh(e.id) FROM embeddb.embedding e WHERE e.relation = {}::regclass")
    run(operations, refresh.format(qualified(table, operation.schema)).as_string(None))


@renderers.dispatch_for(RenameEmbeddedTableOp)
def _render_table(context: Any, operation: RenameEmbeddedTableOp) -> str:
    return call("op.rename_embedded_table", operation.table, operation.new_table, **_about(operation))


@renderers.dispatch_for(RenameEmbeddedColumnOp)
def _render_column(context: Any, operation: RenameEmbeddedColumnOp) -> str:
    names = (operation.table, operation.column, operation.new_column)
    return call("op.rename_embedded_column", *names, **_about(operation))


def _about(operation: _Rename) -> dict[str, Any]:
    return {"schema": operation.schema, "indexes": dict(operation.indexes) or None}
