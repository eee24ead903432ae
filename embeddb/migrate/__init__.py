"""Alembic: operations, autogenerate and drift of what is declared."""

from __future__ import annotations
