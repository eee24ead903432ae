"""Encoders: what turns text, images, sounds and histories into vectors."""

from __future__ import annotations

from embeddb.encoders.embed import Progress, clear_query_cache, embed_documents, embed_query
from embeddb.encoders.hashing import Hashing
from embeddb.encoders.openai import OpenAI
from embeddb.encoders.protocol import Encoder, Modality, Vectors
from embeddb.encoders.registry import from_config, resolve
from embeddb.encoders.sentence_transformer import SentenceTransformer

__all__ = [
    "Encoder",
    "Hashing",
    "Modality",
    "OpenAI",
    "Progress",
    "SentenceTransformer",
    "Vectors",
    "clear_query_cache",
    "embed_documents",
    "embed_query",
    "from_config",
    "resolve",
]
