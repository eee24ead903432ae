"""Telling the database about declared embeddings: triggers, encoder, spec. All of it is one SQL function."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from sqlalchemy import Connection, Engine, MetaData, text
from sqlalchemy.orm import configure_mappers

from embeddb.catalog.errors import catalog_errors
from embeddb.catalog.install import install as install_catalog
from embeddb.catalog.install import require
from embeddb.errors import CatalogError
from embeddb.spec import EmbeddingSpec


def register(bind: Engine | Connection, base: Any, *, install: bool = False) -> dict[str, int]:
    """Register every embedding that ``base`` (a declarative base, a registry or a MetaData) declares.

    Idempotent, and safe from several processes at once: what is registered already, as it is declared, is left
    alone without a lock on its table. Rows that are there without a vector are queued by ``embeddb.backfill``, not
    here. Returns the embeddings' ids by name. With ``install`` the catalog is installed or upgraded first; else
    raises CatalogMissing or CatalogOutdated. Raises DeclarationError where a table or column is not as declared, and
    CatalogError for an asynchronous engine or connection: ``await connection.run_sync(embeddb.register, Base)``.
    """
    if not isinstance(bind, Engine | Connection):
        raise CatalogError(
            f"register takes an Engine or a Connection, not {type(bind).__name__}; of an asynchronous engine: "
            "async with engine.begin() as connection: await connection.run_sync(embeddb.register, Base)"
        )
    metadata = base if isinstance(base, MetaData) else base.metadata
    configure_mappers()
    columns = (column for table in metadata.tables.values() for column in table.columns)
    specs = [column.info["embeddb"].spec for column in columns if "embeddb" in column.info]
    if isinstance(bind, Engine):
        with bind.begin() as connection:
            return _register_all(connection, specs, install)
    return _register_all(bind, specs, install)


def _register_all(connection: Connection, specs: list[EmbeddingSpec], install: bool) -> dict[str, int]:
    if install:
        install_catalog(connection)
    else:
        require(connection)
    # In one order, so that two processes cannot take the tables' locks crosswise; a table's as they are declared, for
    # the first has the short names for its functions.
    specs = sorted(specs, key=lambda spec: (spec.schema or "", spec.table))
    return {spec.name: register_spec(connection, spec) for spec in specs}


def register_spec(connection: Connection, spec: EmbeddingSpec, fingerprint: str | None = None) -> int:
    """Register one embedding, or bring its registration up to date; its id. In the caller's transaction."""
    with catalog_errors():
        return int(
            connection.scalar(
                text("SELECT embeddb.register(cast(:spec AS jsonb), :fingerprint)"),
                {"spec": spec.to_json(), "fingerprint": fingerprint},
            )
        )


def unregister(connection: Connection, name: str) -> None:
    """Take an embedding back: triggers, jobs and failures go, the column and its vectors stay."""
    with catalog_errors():
        connection.execute(text("SELECT embeddb.unregister(cast(:name AS text))"), {"name": name})


def register_sql(spec: EmbeddingSpec) -> str:
    """The statement that registers ``spec``, for a script."""
    return sql.SQL("SELECT embeddb.register({}::jsonb)").format(spec.to_json()).as_string(None)


def unregister_sql(name: str) -> str:
    """The statement that takes the embedding of that name back, for a script."""
    return sql.SQL("SELECT embeddb.unregister({}::text)").format(name).as_string(None)
