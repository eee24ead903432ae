"""What the catalog's functions raise, as errors of embeddb: by SQLSTATE, with the hint that came along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from embeddb.errors import (
    CatalogError,
    CatalogMissing,
    CatalogOutdated,
    DeclarationError,
    EmbeddbError,
    EncoderError,
    PgvectorMissing,
    QueryError,
)

_OWN: Final[dict[str, type[EmbeddbError]]] = {
    "EB001": DeclarationError,
    "EB002": CatalogError,
    "EB003": PgvectorMissing,
    "EB004": EncoderError,
    "EB005": QueryError,
}
#: A catalog that is not there, or too old to have the function.
_ABSENT: Final[dict[str, type[EmbeddbError]]] = {
    "3F000": CatalogMissing,
    "42P01": CatalogMissing,
    "42883": CatalogOutdated,
}


@contextmanager
def catalog_errors() -> Iterator[None]:
    """Around statements that call the catalog and nothing else: its errors as ours, others as they are."""
    try:
        with own_errors():
            yield
    except (DBAPIError, psycopg.Error) as error:
        state = getattr(_cause(error), "sqlstate", None)
        if state not in _ABSENT:
            raise
        raise _ABSENT[state] from error


@contextmanager
def own_errors() -> Iterator[None]:
    """Around statements of any kind: what the catalog's functions raise as ours."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        cause = _cause(error)
        state = getattr(cause, "sqlstate", None)
        if state not in _OWN:
            raise
        diagnostics = getattr(cause, "diag", None)
        said = [getattr(diagnostics, part, None) for part in ("message_primary", "message_hint")]
        raise _OWN[state](". ".join(part for part in said if part) or str(cause)) from error


def _cause(error: DBAPIError | psycopg.Error) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error
