"""SQLAlchemy's side: the column, its type and comparator, and the hooks that embed what a session writes."""

from __future__ import annotations

from embeddb.orm.declaration import Declaration, declared
from embeddb.orm.embedding_column import embedding_column
from embeddb.orm.hooks import install, uninstall
from embeddb.orm.mode import embedding_mode

__all__ = ["Declaration", "declared", "embedding_column", "embedding_mode", "install", "uninstall"]
