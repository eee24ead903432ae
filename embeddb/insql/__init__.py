"""Encoders inside the database: transformers and word vectors as tables, for ``embeddb.embed`` in SQL."""

from __future__ import annotations

from embeddb.insql.by_name import has_sql, install_encoder, remove_encoder
from embeddb.insql.fast import Fast, installed_fast, remove_fast
from embeddb.insql.static import install_words
from embeddb.insql.transformer import Installed, install_transformer, installed, remove_transformer

__all__ = [
    "Fast",
    "Installed",
    "has_sql",
    "install_encoder",
    "install_transformer",
    "install_words",
    "installed",
    "installed_fast",
    "remove_encoder",
    "remove_fast",
    "remove_transformer",
]
