"""Select builders: each gives an ordinary Select, to be filtered, joined and limited like any other."""

from __future__ import annotations

from embeddb.query.nearest import nearest

__all__ = ["nearest"]
