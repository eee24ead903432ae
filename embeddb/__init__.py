"""Embeddings for SQLAlchemy models: declared once, embedded on insert by anyone, searched inside Postgres.

Importing this package imports nothing else: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from embeddb.catalog.register import register
    from embeddb.encoders import CLIP, Hashing, Module, OpenAI, SentenceTransformer, Transformer, Vision, WordVectors
    from embeddb.encoders.speaker import DeepSpeaker, XVector
    from embeddb.errors import (
        CatalogError,
        CatalogMissing,
        CatalogOutdated,
        DeclarationError,
        EmbeddbError,
        EncoderError,
        EncoderNotFound,
        LoadError,
        LocalServerError,
        MetricMismatch,
        MissingExtra,
        NoEmbedding,
        PgvectorMissing,
        PgvectorOutdated,
        QueryError,
        RateLimited,
        SourceError,
        TransientEncoderError,
        TransientSourceError,
        VectorError,
    )
    from embeddb.insight.advise import advise
    from embeddb.insight.diagnose import diagnose
    from embeddb.insight.match import explain_match
    from embeddb.local import LocalPostgres
    from embeddb.orm.bit_types import BIT
    from embeddb.orm.bits import bit_column
    from embeddb.orm.bulk import bulk_load, bulk_load_async
    from embeddb.orm.declaration import Declaration, declared
    from embeddb.orm.embedding_column import embedding_column
    from embeddb.orm.history import history_column, recent_column, register_histories
    from embeddb.orm.hooks import install, uninstall
    from embeddb.orm.mode import embedding_mode
    from embeddb.orm.types import HALFVEC, VECTOR
    from embeddb.orm.vector_column import vector_column
    from embeddb.query.classify import classify
    from embeddb.query.diverse import diverse
    from embeddb.query.duplicates import duplicates
    from embeddb.query.for_each import for_each
    from embeddb.query.fulltext import fulltext
    from embeddb.query.hybrid import hybrid, rank_leg, text_leg, vector_leg
    from embeddb.query.knn_join import knn_join
    from embeddb.query.nearest import nearest
    from embeddb.query.pages import page
    from embeddb.query.plan import explain
    from embeddb.query.recommend import because, recommend
    from embeddb.query.rerank import rerank, rerank_async
    from embeddb.query.similar_to import similar_to
    from embeddb.query.within import within
    from embeddb.sources import Audio, Files, Image
    from embeddb.spec import HNSW, EmbeddingSpec, IVFFlat
    from embeddb.vectors.wire import Vector
    from embeddb.waveform import Waveform
    from embeddb.worker import drain, drain_async

__version__: Final = "0.1.0"

_MODULES: Final = {
    "embeddb.catalog.register": ("register",),
    "embeddb.encoders": (
        "CLIP",
        "Hashing",
        "Module",
        "OpenAI",
        "SentenceTransformer",
        "Transformer",
        "Vision",
        "WordVectors",
    ),
    "embeddb.encoders.speaker": ("DeepSpeaker", "XVector"),
    "embeddb.errors": (
        "CatalogError",
        "CatalogMissing",
        "CatalogOutdated",
        "DeclarationError",
        "EmbeddbError",
        "EncoderError",
        "EncoderNotFound",
        "LoadError",
        "LocalServerError",
        "MetricMismatch",
        "MissingExtra",
        "NoEmbedding",
        "PgvectorMissing",
        "PgvectorOutdated",
        "QueryError",
        "RateLimited",
        "SourceError",
        "TransientEncoderError",
        "TransientSourceError",
        "VectorError",
    ),
    "embeddb.insight.advise": ("advise",),
    "embeddb.insight.diagnose": ("diagnose",),
    "embeddb.insight.match": ("explain_match",),
    "embeddb.local": ("LocalPostgres",),
    "embeddb.orm.bit_types": ("BIT",),
    "embeddb.orm.bits": ("bit_column",),
    "embeddb.orm.bulk": ("bulk_load", "bulk_load_async"),
    "embeddb.orm.declaration": ("Declaration", "declared"),
    "embeddb.orm.embedding_column": ("embedding_column",),
    "embeddb.orm.history": ("history_column", "recent_column", "register_histories"),
    "embeddb.orm.hooks": ("install", "uninstall"),
    "embeddb.orm.mode": ("embedding_mode",),
    "embeddb.orm.types": ("HALFVEC", "VECTOR"),
    "embeddb.orm.vector_column": ("vector_column",),
    "embeddb.query.classify": ("classify",),
    "embeddb.query.diverse": ("diverse",),
    "embeddb.query.duplicates": ("duplicates",),
    "embeddb.query.for_each": ("for_each",),
    "embeddb.query.fulltext": ("fulltext",),
    "embeddb.query.hybrid": ("hybrid", "rank_leg", "text_leg", "vector_leg"),
    "embeddb.query.knn_join": ("knn_join",),
    "embeddb.query.nearest": ("nearest",),
    "embeddb.query.pages": ("page",),
    "embeddb.query.plan": ("explain",),
    "embeddb.query.recommend": ("because", "recommend"),
    "embeddb.query.rerank": ("rerank", "rerank_async"),
    "embeddb.query.similar_to": ("similar_to",),
    "embeddb.query.within": ("within",),
    "embeddb.sources": ("Audio", "Files", "Image"),
    "embeddb.spec": ("HNSW", "EmbeddingSpec", "IVFFlat"),
    "embeddb.vectors.wire": ("Vector",),
    "embeddb.waveform": ("Waveform",),
    "embeddb.worker": ("drain", "drain_async"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BIT",
    "CLIP",
    "HALFVEC",
    "HNSW",
    "VECTOR",
    "Audio",
    "CatalogError",
    "CatalogMissing",
    "CatalogOutdated",
    "Declaration",
    "DeclarationError",
    "DeepSpeaker",
    "EmbeddbError",
    "EmbeddingSpec",
    "EncoderError",
    "EncoderNotFound",
    "Files",
    "Hashing",
    "IVFFlat",
    "Image",
    "LoadError",
    "LocalPostgres",
    "LocalServerError",
    "MetricMismatch",
    "MissingExtra",
    "Module",
    "NoEmbedding",
    "OpenAI",
    "PgvectorMissing",
    "PgvectorOutdated",
    "QueryError",
    "RateLimited",
    "SentenceTransformer",
    "SourceError",
    "Transformer",
    "TransientEncoderError",
    "TransientSourceError",
    "Vector",
    "VectorError",
    "Vision",
    "Waveform",
    "WordVectors",
    "XVector",
    "advise",
    "because",
    "bit_column",
    "bulk_load",
    "bulk_load_async",
    "classify",
    "declared",
    "diagnose",
    "diverse",
    "drain",
    "drain_async",
    "duplicates",
    "embedding_column",
    "embedding_mode",
    "explain",
    "explain_match",
    "for_each",
    "fulltext",
    "history_column",
    "hybrid",
    "install",
    "knn_join",
    "nearest",
    "page",
    "rank_leg",
    "recent_column",
    "recommend",
    "register",
    "register_histories",
    "rerank",
    "rerank_async",
    "similar_to",
    "text_leg",
    "uninstall",
    "vector_column",
    "vector_leg",
    "within",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'embeddb' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
