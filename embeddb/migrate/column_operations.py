"""``op.add_embedding_column`` and ``op.drop_embedding_column``: a downgrade never throws vectors away unasked."""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation
from psycopg import sql

from embeddb.errors import DeclarationError
from embeddb.migrate.render import call
from embeddb.migrate.script import run

Vectors = Literal["keep", "drop"]


class _OfColumn(MigrateOperation):
    """An operation on the column of an embedding."""

    def __init__(
        self, table: str, column: str, storage: str, dim: int, schema: str | None, *, comment: str | None = None
    ) -> None:
        self.table, self.column, self.storage, self.dim, self.schema = table, column, storage, dim, schema
        self.comment = comment


@Operations.register_operation("add_embedding_column")
class AddEmbeddingColumnOp(_OfColumn):
    """Add the column of an embedding, where a downgrade has not left it with its vectors."""

    @classmethod
    def add_embedding_column(
        cls,
        operations: Operations,
        table: str,
        column: str,
        *,
        dim: int,
        storage: str = "vector",
        comment: str | None = None,
        schema: str | None = None,
    ) -> Any:
        """Add the column of an embedding: ``vector(dim)`` or, by ``storage``, ``halfvec(dim)``.

        A column of that name that a downgrade has left, with its vectors, is taken as it is.
        """
        return operations.invoke(cls(table, column, storage, dim, schema, comment=comment))

    def reverse(self) -> DropEmbeddingColumnOp:
        """The opposite, which keeps a column that holds vectors."""
        about = (self.table, self.column, self.storage, self.dim, self.schema)
        return DropEmbeddingColumnOp(*about, "keep", comment=self.comment)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("add_embedding_column", self.schema, self.table, self.column, f"{self.storage}({self.dim})")


@Operations.register_operation("drop_embedding_column")
class DropEmbeddingColumnOp(_OfColumn):
    """Drop the column of an embedding: with vectors in it only if that is asked for."""

    def __init__(
        self,
        table: str,
        column: str,
        storage: str,
        dim: int,
        schema: str | None,
        vectors: Vectors,
        *,
        comment: str | None = None,
    ) -> None:
        super().__init__(table, column, storage, dim, schema, comment=comment)
        self.vectors = vectors

    @classmethod
    def drop_embedding_column(
        cls,
        operations: Operations,
        table: str,
        column: str,
        *,
        vectors: Vectors = "keep",
        dim: int,
        storage: str = "vector",
        comment: str | None = None,
        schema: str | None = None,
    ) -> Any:
        """Drop the column of an embedding. ``vectors``: "keep" leaves a column that holds any, "drop" does not.

        ``alembic -x embeddb_vectors=drop downgrade …`` asks for all. ``dim``, ``storage`` and ``comment`` are for
        the way back.
        """
        if vectors not in ("keep", "drop"):
            raise DeclarationError(f"vectors is 'keep' or 'drop', not {vectors!r}")
        return operations.invoke(cls(table, column, storage, dim, schema, vectors, comment=comment))

    def reverse(self) -> AddEmbeddingColumnOp:
        """The opposite."""
        about = (self.table, self.column, self.storage, self.dim, self.schema)
        return AddEmbeddingColumnOp(*about, comment=self.comment)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("drop_embedding_column", self.schema, self.table, self.column)


@Operations.implementation_for(AddEmbeddingColumnOp)
def _add(operations: Operations, operation: AddEmbeddingColumnOp) -> None:
    statement = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}({})")
    kind = sql.Identifier(operation.storage)
    parts = (_table(operation), sql.Identifier(operation.column), kind, sql.Literal(operation.dim))
    run(operations, statement.format(*parts).as_string(None))
    if operation.comment is not None:
        comment = sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(*parts[:2], sql.Literal(operation.comment))
        run(operations, comment.as_string(None))


@Operations.implementation_for(DropEmbeddingColumnOp)
def _drop(operations: Operations, operation: DropEmbeddingColumnOp) -> None:
    table, column = _table(operation), sql.Identifier(operation.column)
    drop = sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table, column)
    asked = operation.vectors == "drop" or _arguments(operations).get("embeddb_vectors") == "drop"
    if asked:
        run(operations, drop.as_string(None))
        return
    block = sql.SQL(
        "BEGIN IF EXISTS (SELECT FROM {table} WHERE {column} IS NOT NULL) THEN"
        " RAISE WARNING '% keeps its vectors: drop it by alembic -x embeddb_vectors=drop', {name};"
        " ELSE {drop}; END IF; END"
    ).format(table=table, column=column, name=f"{operation.table}.{operation.column}", drop=drop)
    run(operations, sql.SQL("DO {}").format(block.as_string(None)).as_string(None))


def _table(operation: _OfColumn) -> sql.Identifier:
    return sql.Identifier(*([operation.schema] if operation.schema else []), operation.table)


def _arguments(operations: Operations) -> dict[str, str]:
    """What was said by ``alembic -x key=value``; nothing where no command runs."""
    environment = operations.get_context().environment_context
    return {} if environment is None else environment.get_x_argument(as_dictionary=True)


@renderers.dispatch_for(AddEmbeddingColumnOp)
def _render_add(context: Any, operation: AddEmbeddingColumnOp) -> str:
    return call("op.add_embedding_column", operation.table, operation.column, **_about(operation))


@renderers.dispatch_for(DropEmbeddingColumnOp)
def _render_drop(context: Any, operation: DropEmbeddingColumnOp) -> str:
    vectors = {"vectors": operation.vectors}
    return call("op.drop_embedding_column", operation.table, operation.column, **vectors, **_about(operation))


def _about(operation: _OfColumn) -> dict[str, Any]:
    storage = None if operation.storage == "vector" else operation.storage
    return {"dim": operation.dim, "storage": storage, "comment": operation.comment, "schema": operation.schema}
