"""Encoders: what turns text, images, sounds and histories into vectors."""

from __future__ import annotations

from embeddb.encoders.clip import CLIP
from embeddb.encoders.embed import Progress, clear_query_cache, embed_documents, embed_queries, embed_query
from embeddb.encoders.hashing import Hashing
from embeddb.encoders.module import Module
from embeddb.encoders.openai import OpenAI
from embeddb.encoders.protocol import Encoder, Modality, Vectors
from embeddb.encoders.reduced import Reduced
from embeddb.encoders.registry import from_config, resolve
from embeddb.encoders.sentence_transformer import SentenceTransformer
from embeddb.encoders.transformer import Transformer
from embeddb.encoders.vision import Vision
from embeddb.encoders.words import WordVectors

__all__ = [
    "CLIP",
    "Encoder",
    "Hashing",
    "Modality",
    "Module",
    "OpenAI",
    "Progress",
    "Reduced",
    "SentenceTransformer",
    "Transformer",
    "Vectors",
    "Vision",
    "WordVectors",
    "clear_query_cache",
    "embed_documents",
    "embed_queries",
    "embed_query",
    "from_config",
    "resolve",
]
