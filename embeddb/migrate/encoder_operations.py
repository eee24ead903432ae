"""``op.install_encoder`` and ``op.remove_encoder``: an embedding's encoder inside the database."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from psycopg import sql

from embeddb.insql.by_name import install_encoder, remove_encoder
from embeddb.migrate.embedding_operations import OfEmbedding
from embeddb.migrate.render import call
from embeddb.migrate.script import connection_of, run


@Operations.register_operation("install_encoder")
class InstallEncoderOp(OfEmbedding):
    """Put an embedding's encoder into the database, for ``embeddb.embed``. ``model``: what to call it."""

    called = "install_encoder"

    def __init__(
        self, table: str, column: str, schema: str | None = None, *, halfvec: bool = False, name: str | None = None
    ) -> None:
        super().__init__(table, column, schema)
        self.halfvec, self.model = halfvec, name

    @classmethod
    def install_encoder(
        cls,
        operations: Operations,
        table: str,
        column: str,
        *,
        schema: str | None = None,
        halfvec: bool = False,
        name: str | None = None,
    ) -> Any:
        """Put an embedding's encoder into the database, as ``embeddb sql install`` does.

        The embedding must be there, and the encoder's model where the migration runs. ``halfvec``: a transformer's
        weights in half precision. ``name``: what to call it, by default as the model. A script (``--sql``) cannot hold
        an encoder: it warns.
        """
        return operations.invoke(cls(table, column, schema, halfvec=halfvec, name=name))

    def reverse(self) -> RemoveEncoderOp:
        """The opposite."""
        return RemoveEncoderOp(self.table, self.column, self.schema)


@Operations.register_operation("remove_encoder")
class RemoveEncoderOp(OfEmbedding):
    """Take an embedding's encoder out of the database."""

    called = "remove_encoder"

    @classmethod
    def remove_encoder(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> Any:
        """Take an embedding's encoder out of the database, for all that have it; what was distilled stays."""
        return operations.invoke(cls(table, column, schema))

    def reverse(self) -> InstallEncoderOp:
        """The opposite, in single precision and under the model's own name."""
        return InstallEncoderOp(self.table, self.column, self.schema)


@Operations.implementation_for(InstallEncoderOp)
def _install(operations: Operations, operation: InstallEncoderOp) -> None:
    if operations.get_context().as_sql:
        _warn(operations, f"a script cannot hold an encoder: run embeddb sql install {operation.name}")
    else:
        install_encoder(connection_of(operations), operation.name, half=operation.halfvec, name=operation.model)


@Operations.implementation_for(RemoveEncoderOp)
def _remove(operations: Operations, operation: RemoveEncoderOp) -> None:
    if operations.get_context().as_sql:
        _warn(operations, f"the encoder of {operation.name} stays in the database: run embeddb sql remove")
    else:
        remove_encoder(connection_of(operations), operation.name)


def _warn(operations: Operations, what: str) -> None:
    body = sql.SQL("BEGIN RAISE WARNING '%', {}; END").format(what).as_string(None)
    run(operations, sql.SQL("DO {}").format(body).as_string(None))


@renderers.dispatch_for(InstallEncoderOp)
def _render_install(context: Any, operation: InstallEncoderOp) -> str:
    return call(
        "op.install_encoder", operation.table, operation.column, schema=operation.schema,
        halfvec=operation.halfvec or None, name=operation.model,
    )  # fmt: skip


@renderers.dispatch_for(RemoveEncoderOp)
def _render_remove(context: Any, operation: RemoveEncoderOp) -> str:
    return call("op.remove_encoder", operation.table, operation.column, schema=operation.schema)
