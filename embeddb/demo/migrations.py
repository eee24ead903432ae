"""Where the demo's migrations are."""

from __future__ import annotations

from pathlib import Path


def migrations() -> Path:
    """The folder of the demo's Alembic environment: in an installed package beside this module, else a clone's own."""
    installed = Path(__file__).with_name("alembic")
    return installed if installed.is_dir() else Path(__file__).parents[2] / "alembic"
