"""One hierarchy for every error that embeddb raises.

An exception's docstring is its default message, so ``raise PgvectorMissing`` already says what to do.
"""

from __future__ import annotations

import inspect


class EmbeddbError(Exception):
    """Something went wrong in embeddb."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(self.__doc__ or type(self).__name__))


class DeclarationError(EmbeddbError):
    """An embedding is declared in a way that cannot work."""


class VectorError(EmbeddbError, ValueError):
    """A vector cannot be stored: it is zero, not finite, or of the wrong dimensions."""


class QueryError(EmbeddbError):
    """A query over an embedding cannot be built or run."""


class MetricMismatch(QueryError):
    """The query's operator is not the one that the embedding's index serves."""


class SourceError(EmbeddbError, ValueError):
    """A source (text, file, history) cannot be read."""


class TransientSourceError(SourceError):
    """A source cannot be read now, in a way that may pass: trying again later is right."""


class LoadError(EmbeddbError, ValueError):
    """Rows cannot be loaded: a value is missing, or is not what its column takes."""


class EncoderError(EmbeddbError):
    """An encoder failed.

    ``position``: the input that it failed for, counted from 0 in the list that was given; None for all of them.
    """

    def __init__(self, message: str | None = None, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class NoEmbedding(EncoderError):
    """This query has no embedding: it holds nothing that the encoder knows."""


class EncoderNotFound(EncoderError, LookupError):
    """No encoder of that name is built in or installed."""


class MissingExtra(EncoderError, ImportError):
    """A package that this encoder needs is not installed."""


class TransientEncoderError(EncoderError):
    """An encoder failed in a way that may pass: trying again later is right."""


class RateLimited(TransientEncoderError):
    """A remote encoder asks to wait. This is a wait, never a failure.

    ``retry_after``: seconds to wait, or None where the server named none.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CatalogError(EmbeddbError):
    """The catalog (schema ``embeddb``) is not as this version needs it."""


class CatalogMissing(CatalogError):
    """This database has no embeddb catalog. Run `embeddb schema install`."""


class CatalogOutdated(CatalogError):
    """The embeddb catalog is of an older version. Run `embeddb schema upgrade`."""


class PgvectorMissing(CatalogError):
    """The pgvector extension is not installed in this database. Run `CREATE EXTENSION vector`."""


class PgvectorOutdated(CatalogError):
    """This database's pgvector is older than 0.8. Run `ALTER EXTENSION vector UPDATE`."""


class LocalServerError(EmbeddbError):
    """The embedded Postgres could not be started."""
