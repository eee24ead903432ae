"""``op.expand_embedding``, ``op.swap_embedding``, ``op.contract_embedding``: another encoder, without downtime."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from psycopg import sql

from embeddb.migrate.arguments import spec_of
from embeddb.migrate.embedding_operations import OfDeclaration, OfEmbedding, done_by, render_declaration
from embeddb.migrate.script import run
from embeddb.spec import EmbeddingSpec


@Operations.register_operation("expand_embedding")
class ExpandEmbeddingOp(OfDeclaration):
    """Add a second column for another encoder, and queue all rows for it."""

    called = "expand_embedding"

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
        return AbandonEmbeddingOp(self.table, self.column, self.schema, existing=self.spec)


@done_by("abandon", "abandon_embedding")
class AbandonEmbeddingOp(OfEmbedding):
    """Drop the second column, which has never served."""

    def __init__(
        self, table: str, column: str, schema: str | None = None, *, existing: EmbeddingSpec | None = None
    ) -> None:
        super().__init__(table, column, schema)
        self.existing = existing

    @classmethod
    def abandon_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Drop the second column, which has never served: the change of encoder is off."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> ExpandEmbeddingOp:
        """The opposite: all rows are queued once more."""
        if self.existing is None:
            raise ValueError(f"the change of {self.name} cannot be begun again: its new encoder is not known")
        return ExpandEmbeddingOp(self.existing)


@done_by("swap", "swap_embedding")
class SwapEmbeddingOp(OfEmbedding):
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


@done_by("roll_back", "roll_back_embedding")
class RollBackEmbeddingOp(OfEmbedding):
    """Exchange them again."""

    @classmethod
    def roll_back_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Exchange the two columns again: the old one, which was kept up to date, serves from now on."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> SwapEmbeddingOp:
        """The opposite."""
        return SwapEmbeddingOp(self.table, self.column, self.schema)


@done_by("contract", "contract_embedding")
class ContractEmbeddingOp(OfEmbedding):
    """Drop the old column: there is no way back then."""

    @classmethod
    def contract_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Drop the old column, ``<column>__old``, with its vectors and its index: there is no way back then."""
        return operations.invoke(cls(table, column, schema))


@Operations.implementation_for(ExpandEmbeddingOp)
def _expand(operations: Operations, operation: ExpandEmbeddingOp) -> None:
    statement = sql.SQL("SELECT embeddb.expand({}::jsonb)").format(operation.spec.to_json())
    run(operations, statement.as_string(None))


renderers.dispatch_for(ExpandEmbeddingOp)(render_declaration)
