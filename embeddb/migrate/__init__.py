"""Alembic: operations, autogenerate and checks of everything that is declared."""

from __future__ import annotations


def setup() -> None:
    """Make Alembic before 1.18, which looks for no plug-ins, know embeddb. For ``env.py``; idempotent."""
    from embeddb.migrate.plugin import setup_without_plugins

    setup_without_plugins()
