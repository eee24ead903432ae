"""``op.create_embedding``, ``op.alter_embedding``, ``op.drop_embedding``: registrations, with their triggers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation
from psycopg import sql

from embeddb.catalog.register import register_sql, unregister_sql
from embeddb.migrate.arguments import arguments_of, as_json, as_source, spec_of
from embeddb.migrate.render import call
from embeddb.migrate.script import call as sql_call
from embeddb.migrate.script import qualified, run
from embeddb.naming import embedding_name
from embeddb.spec import EmbeddingSpec


class OfEmbedding(MigrateOperation):
    """An operation on one embedding. ``called``: after ``op.``"""

    called: ClassVar[str]

    def __init__(self, table: str, column: str, schema: str | None = None) -> None:
        self.table, self.column, self.schema = table, column, schema

    @property
    def name(self) -> str:
        """``table.column`` or ``schema.table.column``."""
        return embedding_name(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return (self.called, self.name)


E = TypeVar("E", bound=OfEmbedding)


def done_by(function: str, called: str) -> Callable[[type[E]], type[E]]:
    """Register ``op.called(table, column)``, which a function of the catalog's does, by the embedding's name alone."""

    def implement(operations: Operations, operation: OfEmbedding) -> None:
        run(operations, sql_call(function, operation.name))

    def render(context: Any, operation: OfEmbedding) -> str:
        return call(f"op.{called}", operation.table, operation.column, schema=operation.schema)

    def register(kind: type[E]) -> type[E]:
        kind.called = called
        Operations.implementation_for(kind)(implement)
        renderers.dispatch_for(kind)(render)
        return Operations.register_operation(called)(kind)

    return register


class OfDeclaration(OfEmbedding):
    """An operation on one embedding that takes all of its declaration."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__(spec.table, spec.column, spec.schema)
        self.spec = spec

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return (*super().to_diff_tuple(), self.spec.to_dict())


@Operations.register_operation("create_embedding")
class CreateEmbeddingOp(OfDeclaration):
    """Register an embedding: from now on its rows are queued by triggers and embedded by workers."""

    called = "create_embedding"

    @classmethod
    def create_embedding(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None, **arguments: Any
    ) -> Any:
        """Register an embedding: its triggers queue rows, workers embed them.

        The column must be there; ``arguments`` are those of ``EmbeddingSpec``: ``sources``, ``encoder`` (its
        configuration), ``dim``, and what differs from the defaults. Rows that are there already are queued by
        ``embeddb backfill``.
        """
        return operations.invoke(cls(spec_of(table, column, schema, arguments)))

    def reverse(self) -> DropEmbeddingOp:
        """The opposite."""
        return DropEmbeddingOp(self.table, self.column, self.schema, existing=self.spec)


@Operations.register_operation("drop_embedding")
class DropEmbeddingOp(OfEmbedding):
    """Take an embedding back: triggers, jobs and failures go, the column and its vectors stay."""

    called = "drop_embedding"

    def __init__(
        self, table: str, column: str, schema: str | None = None, *, existing: EmbeddingSpec | None = None
    ) -> None:
        super().__init__(table, column, schema)
        self.existing = existing

    @classmethod
    def drop_embedding(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None, **existing: Any
    ) -> Any:
        """Take an embedding back: triggers, jobs and failures go, the column and its vectors stay.

        ``existing``: the arguments it was created with, which only the way back needs.
        """
        spec = spec_of(table, column, schema, existing) if existing else None
        return operations.invoke(cls(table, column, schema, existing=spec))

    def reverse(self) -> CreateEmbeddingOp:
        """The opposite."""
        if self.existing is None:
            raise ValueError(f"the embedding {self.name} cannot be created again: its arguments are not known")
        return CreateEmbeddingOp(self.existing)


@Operations.register_operation("alter_embedding")
class AlterEmbeddingOp(OfEmbedding):
    """Change what an embedding was registered with."""

    called = "alter_embedding"

    def __init__(
        self, table: str, column: str, schema: str | None, changes: Mapping[str, Any], existing: Mapping[str, Any]
    ) -> None:
        super().__init__(table, column, schema)
        self.changes, self.existing = changes, existing

    @classmethod
    def alter_embedding(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None, **arguments: Any
    ) -> Any:
        """Change what an embedding was registered with.

        ``arguments``: those of ``EmbeddingSpec`` that change, and ``existing_…`` for what they were, which only the
        way back needs. Where the rows' text changes by it (sources, template), all rows are queued. Another ``storage``
        rewrites the column, which must have no index meanwhile.
        """
        existing = {name[9:]: value for name, value in arguments.items() if name.startswith("existing_")}
        changes = {name: value for name, value in arguments.items() if not name.startswith("existing_")}
        return operations.invoke(cls(table, column, schema, changes, existing))

    def reverse(self) -> AlterEmbeddingOp:
        """The opposite."""
        return AlterEmbeddingOp(self.table, self.column, self.schema, self.existing, self.changes)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return (*super().to_diff_tuple(), as_json(self.changes), as_json(self.existing))


@done_by("disarm", "disarm_embedding")
class DisarmEmbeddingOp(OfEmbedding):
    """Take an embedding's triggers away, so that a column they name can change its type."""

    @classmethod
    def disarm_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Take an embedding's triggers away, until ``refresh_embedding``: they stand in the way of ALTER TYPE."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> RefreshEmbeddingOp:
        """The opposite."""
        return RefreshEmbeddingOp(self.table, self.column, self.schema)


@done_by("refresh", "refresh_embedding")
class RefreshEmbeddingOp(OfEmbedding):
    """Make an embedding's triggers and functions as they should be. ``disarmed``: they were taken away before."""

    def __init__(self, table: str, column: str, schema: str | None = None, *, disarmed: bool = True) -> None:
        super().__init__(table, column, schema)
        self.disarmed = disarmed

    @classmethod
    def refresh_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Make an embedding's triggers and functions as they should be: after ``disarm_embedding``, or a mishap."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> DisarmEmbeddingOp | RefreshEmbeddingOp:
        """The opposite; of what only mends, the same."""
        if not self.disarmed:
            return self
        return DisarmEmbeddingOp(self.table, self.column, self.schema)


@Operations.implementation_for(CreateEmbeddingOp)
def _create(operations: Operations, operation: CreateEmbeddingOp) -> None:
    run(operations, register_sql(operation.spec))


@Operations.implementation_for(DropEmbeddingOp)
def _drop(operations: Operations, operation: DropEmbeddingOp) -> None:
    run(operations, unregister_sql(operation.name))


@Operations.implementation_for(AlterEmbeddingOp)
def _alter(operations: Operations, operation: AlterEmbeddingOp) -> None:
    if "storage" in operation.changes:
        run(operations, _retyped(operation))
    run(operations, sql_call("alter", operation.name, json.dumps(as_json(operation.changes), ensure_ascii=False)))


def _retyped(operation: AlterEmbeddingOp) -> str:
    """The column with another type of pgvector's, of as many dimensions. Triggers that name it stand in the way."""
    block = sql.SQL(
        "DECLARE kind text; BEGIN"
        " SELECT format('%I.%I(%s)', n.nspname, t.typname, a.atttypmod) INTO kind"
        " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type o ON o.oid = a.atttypid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace"
        " JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = {storage} AND t.oid <> o.oid"
        " WHERE a.attrelid = {table}::regclass AND a.attname = {column};"
        " IF FOUND THEN PERFORM embeddb.disarm({name});"
        " EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', {table}, {column}, kind);"
        " PERFORM embeddb.refresh({name}); END IF; END"
    ).format(
        storage=operation.changes["storage"],
        table=qualified(operation.table, operation.schema),
        column=operation.column,
        name=operation.name,
    )
    return sql.SQL("DO {}").format(block.as_string(None)).as_string(None)


@renderers.dispatch_for(CreateEmbeddingOp)
def render_declaration(context: Any, operation: OfDeclaration) -> str:
    """As Alembic asks for it: with the arguments that are not as by default."""
    arguments = as_source(arguments_of(operation.spec))
    if "index" in arguments and operation.spec.index is not None:
        context.imports.add("import embeddb")
    return call(f"op.{operation.called}", operation.table, operation.column, schema=operation.schema, **arguments)


@renderers.dispatch_for(DropEmbeddingOp)
def _render_drop(context: Any, operation: DropEmbeddingOp) -> str:
    return call("op.drop_embedding", operation.table, operation.column, schema=operation.schema)


@renderers.dispatch_for(AlterEmbeddingOp)
def _render_alter(context: Any, operation: AlterEmbeddingOp) -> str:
    arguments = {**as_source(operation.changes), **as_source(operation.existing, "existing_")}
    if "index" in operation.changes:
        context.imports.add("import embeddb")
    return call("op.alter_embedding", operation.table, operation.column, schema=operation.schema, **arguments)
