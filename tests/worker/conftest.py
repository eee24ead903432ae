from __future__ import annotations

from tests.catalog.databases import articles, catalog, db

__all__ = ["articles", "catalog", "db"]
