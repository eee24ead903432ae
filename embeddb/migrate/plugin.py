"""Alembic's own entry point."""

from __future__ import annotations

from typing import Any


def setup(plugin: Any) -> None:
    """Called by Alembic when it finds the plug-in."""
