"""Encoders inside the database: transformers and word vectors as tables, for ``embeddb.embed`` in SQL."""

from __future__ import annotations

from embeddb.insql.fast import Fast, installed_fast, remove_fast
from embeddb.insql.static import install_words
from embeddb.insql.transformer import Installed, install_transformer, installed, remove_transformer

__all__ = [
    "Fast",
    "Installed",
    "install_transformer",
    "install_words",
    "installed",
    "installed_fast",
    "remove_fast",
    "remove_transformer",
]
