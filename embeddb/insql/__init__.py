"""Encoders inside the database: transformers and word vectors as tables, for ``embeddb.embed`` in SQL."""

from __future__ import annotations

from embeddb.insql.transformer import Installed, install_transformer, installed, remove_transformer

__all__ = ["Installed", "install_transformer", "installed", "remove_transformer"]
