"""Refusing, in words, a database without a usable pgvector."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, text

from embeddb.errors import PgvectorMissing, PgvectorOutdated

MINIMUM: Final = (0, 8)

_VERSION: Final = text("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'")


def check_extension(target: Any, connection: Connection, **options: Any) -> None:
    """Raise PgvectorMissing or PgvectorOutdated unless the database has pgvector 0.8 or newer.

    Has the signature of a ``before_create`` listener. Offline DDL (``create_mock_engine``) is let through.
    """
    if not isinstance(connection, Connection):
        return
    version = connection.scalar(_VERSION)
    database = connection.engine.url.database
    if version is None:
        raise PgvectorMissing(
            f"database {database!r} has no pgvector: run CREATE EXTENSION vector in it, as a role that may"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM:
        raise PgvectorOutdated(
            f"database {database!r} has pgvector {version}, and embeddb needs 0.8: install a newer pgvector on the "
            "server, then run ALTER EXTENSION vector UPDATE"
        )
