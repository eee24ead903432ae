"""Vectors as numpy arrays, and pgvector's formats for them. Needs numpy alone."""

from __future__ import annotations

from embeddb.vectors.values import as_vector, check_vector, check_vectors
from embeddb.vectors.wire import Vector, from_text, pack, to_text, unpack

__all__ = ["Vector", "as_vector", "check_vector", "check_vectors", "from_text", "pack", "to_text", "unpack"]
