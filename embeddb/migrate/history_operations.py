"""``op.create_history`` and ``op.drop_history``: vectors and last events of users, which triggers keep up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation

from embeddb.catalog.steps import statements
from embeddb.migrate.render import call
from embeddb.migrate.script import connection_of, run
from embeddb.naming import embedding_name
from embeddb.orm.history import schemas_of
from embeddb.orm.history_spec import HistorySpec, forgetting

_IDENTITY: Final = ("users", "column", "users_schema")


class _OfHistory(MigrateOperation):
    """An operation on one history: its users' table and the column there."""

    def __init__(self, table: str, column: str, schema: str | None) -> None:
        self.table, self.column, self.schema = table, column, schema

    @property
    def name(self) -> str:
        """``table.column`` or ``schema.table.column``."""
        return embedding_name(self.table, self.column, self.schema)


@Operations.register_operation("create_history")
class CreateHistoryOp(_OfHistory):
    """Keep a history up by triggers from now on, and make it of the events that are there."""

    def __init__(self, spec: HistorySpec) -> None:
        super().__init__(spec.users, spec.column, spec.users_schema)
        self.spec = spec

    @classmethod
    def create_history(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None, **arguments: Any
    ) -> Any:
        """Keep a column of the users' table up by triggers from now on, and make it of the events that are there.

        The tables and columns must be there; ``arguments`` are those of ``HistorySpec``: ``events``, ``user_ref``,
        ``items``, and so on.
        """
        return operations.invoke(
            cls(HistorySpec.from_dict({"users": table, "column": column, "users_schema": schema, **arguments}))
        )

    def reverse(self) -> DropHistoryOp:
        """The opposite."""
        return DropHistoryOp(self.table, self.column, self.schema, existing=self.spec)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("create_history", self.name, self.spec.to_dict())


@Operations.register_operation("drop_history")
class DropHistoryOp(_OfHistory):
    """Take a history's triggers and functions away. The column stays as it is."""

    def __init__(self, table: str, column: str, schema: str | None, *, existing: HistorySpec | None = None) -> None:
        super().__init__(table, column, schema)
        self.existing = existing

    @classmethod
    def drop_history(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Take a history's triggers and functions away. The column stays as it is."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> CreateHistoryOp:
        """The opposite."""
        if self.existing is None:
            raise ValueError(f"the history {self.name} cannot be created again: its arguments are not known")
        return CreateHistoryOp(self.existing)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("drop_history", self.name)


@Operations.implementation_for(CreateHistoryOp)
def _create(operations: Operations, operation: CreateHistoryOp) -> None:
    spec, offline = operation.spec, operations.get_context().as_sql
    _run_all(operations, spec.register_statements(None if offline else schemas_of(connection_of(operations), spec)))
    run(operations, spec.rebuild_statement())


@Operations.implementation_for(DropHistoryOp)
def _drop(operations: Operations, operation: DropHistoryOp) -> None:
    _run_all(operations, forgetting(operation.table, operation.column, operation.schema))


def _run_all(operations: Operations, scripts: Iterable[str]) -> None:
    # One by one: some drivers take no more at once.
    for script in scripts:
        for statement in statements(f"{script};"):
            run(operations, statement)


@renderers.dispatch_for(CreateHistoryOp)
def _render_create(context: Any, operation: CreateHistoryOp) -> str:
    given = {
        field.name: getattr(operation.spec, field.name)
        for field in fields(operation.spec)
        if field.name not in _IDENTITY and getattr(operation.spec, field.name) != field.default
    }
    return call("op.create_history", operation.table, operation.column, schema=operation.schema, **given)


@renderers.dispatch_for(DropHistoryOp)
def _render_drop(context: Any, operation: DropHistoryOp) -> str:
    return call("op.drop_history", operation.table, operation.column, schema=operation.schema)
