"""An embedded Postgres with pgvector: a data folder in, a running server out."""

from __future__ import annotations

from embeddb.local.programs import VERSIONS
from embeddb.local.server import LocalPostgres

__all__ = ["VERSIONS", "LocalPostgres"]
