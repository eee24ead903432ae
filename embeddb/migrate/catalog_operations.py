"""``op.install_embeddb``, ``op.upgrade_embeddb`` and ``op.uninstall_embeddb``: the catalog in a migration."""

from __future__ import annotations

from typing import Any, Final, Self

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation

from embeddb.catalog.install import install, upgrade_statements
from embeddb.catalog.steps import steps
from embeddb.migrate.render import call
from embeddb.migrate.script import connection_of, run

#: Another project's migrations, or another tenant's, may have registered something in the same database.
_UNINSTALL: Final = """DO $$
DECLARE
    others text := (SELECT string_agg(name, ', ' ORDER BY name) FROM (
        SELECT v.name FROM embeddb.embeddings v UNION ALL SELECT h.history FROM embeddb.histories h) AS registered);
BEGIN
    IF others IS NULL THEN
        DROP SCHEMA embeddb CASCADE;
    ELSE
        RAISE WARNING 'the schema embeddb stays, for % is registered there', others;
    END IF;
END $$"""


@Operations.register_operation("install_embeddb")
class InstallEmbeddbOp(MigrateOperation):
    """Install pgvector, where it is not there, and the catalog: schema ``embeddb``."""

    @classmethod
    def install_embeddb(cls, operations: Operations) -> Any:
        """Install pgvector, where it is not there, and the catalog: schema ``embeddb``.

        Running it again brings the catalog up to date. The role must be allowed to create the extension ``vector``, or
        find it there.
        """
        return operations.invoke(cls())

    def reverse(self) -> UninstallEmbeddbOp:
        """The opposite."""
        return UninstallEmbeddbOp()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("install_embeddb",)


@Operations.register_operation("uninstall_embeddb")
class UninstallEmbeddbOp(MigrateOperation):
    """Remove the catalog, where nothing is registered in it any more. Tables, columns, vectors and pgvector stay."""

    @classmethod
    def uninstall_embeddb(cls, operations: Operations) -> Any:
        """Remove the catalog with its queue, where nothing is registered in it any more: else it stays, with a warning.

        Tables, columns, vectors and pgvector stay.
        """
        return operations.invoke(cls())

    def reverse(self) -> InstallEmbeddbOp:
        """The opposite."""
        return InstallEmbeddbOp()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("uninstall_embeddb",)


@Operations.register_operation("upgrade_embeddb")
class UpgradeEmbeddbOp(MigrateOperation):
    """Bring the catalog up to date. There is no way back: its tables only ever grow."""

    def __init__(self, version: int, existing_version: int) -> None:
        self.version, self.existing_version = version, existing_version

    @classmethod
    def upgrade_embeddb(cls, operations: Operations, version: int, *, existing_version: int) -> Any:
        """Bring the catalog from ``existing_version`` to ``version`` or, when it runs, to that of the package."""
        return operations.invoke(cls(version, existing_version))

    def reverse(self) -> Self:
        """Functions and views are made anew by the package that runs; the tables stay as they are."""
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("upgrade_embeddb", self.existing_version, self.version)


@Operations.implementation_for(InstallEmbeddbOp)
def _install(operations: Operations, operation: InstallEmbeddbOp) -> None:
    run(operations, "CREATE EXTENSION IF NOT EXISTS vector")
    _bring_up_to_date(operations, 0)


@Operations.implementation_for(UpgradeEmbeddbOp)
def _upgrade(operations: Operations, operation: UpgradeEmbeddbOp) -> None:
    _bring_up_to_date(operations, min(operation.existing_version, len(steps())))


def _bring_up_to_date(operations: Operations, installed: int) -> None:
    if not operations.get_context().as_sql:
        install(connection_of(operations))
        return
    for statement in upgrade_statements(installed):
        run(operations, statement)


@Operations.implementation_for(UninstallEmbeddbOp)
def _uninstall(operations: Operations, operation: UninstallEmbeddbOp) -> None:
    run(operations, _UNINSTALL)


@renderers.dispatch_for(InstallEmbeddbOp)
def _render_install(context: Any, operation: InstallEmbeddbOp) -> str:
    return call("op.install_embeddb")


@renderers.dispatch_for(UninstallEmbeddbOp)
def _render_uninstall(context: Any, operation: UninstallEmbeddbOp) -> str:
    return call("op.uninstall_embeddb")


@renderers.dispatch_for(UpgradeEmbeddbOp)
def _render_upgrade(context: Any, operation: UpgradeEmbeddbOp) -> str:
    return call("op.upgrade_embeddb", operation.version, existing_version=operation.existing_version)
