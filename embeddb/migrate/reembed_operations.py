"""``op.expand_embedding``, ``op.swap_embedding``, ``op.contract_embedding``: another encoder, without downtime."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from psycopg import sql

from embeddb.migrate.arguments import arguments_of, as_source, spec_of
from embeddb.migrate.embedding_operations import _OfEmbedding
from embeddb.migrate.render import call
from embeddb.migrate.script import call as sql_call
from embeddb.migrate.script import run
from embeddb.spec import EmbeddingSpec


@Operations.register_operation("expand_embedding")
class ExpandEmbeddingOp(_OfEmbedding):
    """Add a second column for another encoder, and queue all rows for it."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__(spec.table, spec.column, spec.schema)
        self.spec = spec

    @classmethod
    def expand_embedding(
        cls, operations: Operations, table: str, column: str, *, schema: str | None = None, **arguments: Any
    ) -> Any:
        """Add a second column, ``<column>__next``, for another encoder, and queue all rows for it.

        ``arguments``: the whole new declaration, as of ``create_embedding``. Searches go on by the old column. When
        workers have filled the new one, ``swap_embedding`` lets it take the old one's place.
        """
        return operations.invoke(cls(spec_of(table, column, schema, arguments)))

    def reverse(self) -> AbandonEmbeddingOp:
        """The opposite."""
        return AbandonEmbeddingOp(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("expand_embedding", self.name, self.spec.to_dict())


@Operations.register_operation("abandon_embedding")
class AbandonEmbeddingOp(_OfEmbedding):
    """Drop the second column, which has never served."""

    @classmethod
    def abandon_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Drop the second column, which has never served: the change of encoder is off."""
        return operations.invoke(cls(table, column, schema))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("abandon_embedding", self.name)


@Operations.register_operation("swap_embedding")
class SwapEmbeddingOp(_OfEmbedding):
    """Exchange the two columns in one short transaction."""

    @classmethod
    def swap_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Exchange the two columns of an embedding whose encoder is being changed: the new one serves from now on.

        Fails while rows still wait for their new vector, or where the new column has no index and the old one has.
        """
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> RollBackEmbeddingOp:
        """The opposite."""
        return RollBackEmbeddingOp(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("swap_embedding", self.name)


@Operations.register_operation("roll_back_embedding")
class RollBackEmbeddingOp(_OfEmbedding):
    """Exchange them again."""

    @classmethod
    def roll_back_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Exchange the two columns again: the old one, which was kept up to date, serves from now on."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> SwapEmbeddingOp:
        """The opposite."""
        return SwapEmbeddingOp(self.table, self.column, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("roll_back_embedding", self.name)


@Operations.register_operation("contract_embedding")
class ContractEmbeddingOp(_OfEmbedding):
    """Drop the old column: there is no way back then."""

    @classmethod
    def contract_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Drop the old column, ``<column>__old``, with its vectors and its index: there is no way back then."""
        return operations.invoke(cls(table, column, schema))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("contract_embedding", self.name)


@Operations.implementation_for(ExpandEmbeddingOp)
def _expand(operations: Operations, operation: ExpandEmbeddingOp) -> None:
    statement = sql.SQL("SELECT embeddb.expand({}::jsonb)").format(operation.spec.to_json())
    run(operations, statement.as_string(None))


@Operations.implementation_for(AbandonEmbeddingOp)
def _abandon(operations: Operations, operation: AbandonEmbeddingOp) -> None:
    run(operations, sql_call("abandon", operation.name))


@Operations.implementation_for(SwapEmbeddingOp)
def _swap(operations: Operations, operation: SwapEmbeddingOp) -> None:
    run(operations, sql_call("swap", operation.name))


@Operations.implementation_for(RollBackEmbeddingOp)
def _roll_back(operations: Operations, operation: RollBackEmbeddingOp) -> None:
    run(operations, sql_call("roll_back", operation.name))


@Operations.implementation_for(ContractEmbeddingOp)
def _contract(operations: Operations, operation: ContractEmbeddingOp) -> None:
    run(operations, sql_call("contract", operation.name))


@renderers.dispatch_for(ExpandEmbeddingOp)
def _render_expand(context: Any, operation: ExpandEmbeddingOp) -> str:
    arguments = as_source(arguments_of(operation.spec))
    if "index" in arguments:
        context.imports.add("import embeddb")
    return call("op.expand_embedding", operation.table, operation.column, schema=operation.schema, **arguments)


def _render(name: str) -> Any:
    def render(context: Any, operation: _OfEmbedding) -> str:
        return call(f"op.{name}", operation.table, operation.column, schema=operation.schema)

    return render


renderers.dispatch_for(AbandonEmbeddingOp)(_render("abandon_embedding"))
renderers.dispatch_for(SwapEmbeddingOp)(_render("swap_embedding"))
renderers.dispatch_for(RollBackEmbeddingOp)(_render("roll_back_embedding"))
renderers.dispatch_for(ContractEmbeddingOp)(_render("contract_embedding"))
