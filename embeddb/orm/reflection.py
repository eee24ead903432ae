"""An embedding that no Python code at hand declares: found in the catalog by its name, or described by the caller."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, text
from sqlalchemy.exc import NoSuchTableError

from embeddb.encoders import Encoder, from_config
from embeddb.errors import CatalogError
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.settings import Settings
from embeddb.spec import EmbeddingSpec

_HAS_CATALOG: Final = text("SELECT pg_catalog.to_regclass('embeddb.embeddings') IS NOT NULL")
_SPEC: Final = text(
    "SELECT spec || jsonb_build_object('schema', \"schema\", 'table', \"table\", 'column', \"column\", "
    "'sources', to_jsonb(sources), 'encoder', encoder, 'dim', dim) FROM embeddb.embeddings WHERE name = :name"
)
_NAMES: Final = text("SELECT name FROM embeddb.embeddings ORDER BY name")


def find_spec(connection: Connection, name: str) -> EmbeddingSpec:
    """The spec registered as ``table.column`` or ``schema.table.column``, by its present names.

    Raises CatalogError, naming what is registered, where there is none of that name.
    """
    known: list[str] = []
    if connection.scalar(_HAS_CATALOG):
        found = connection.scalar(_SPEC, {"name": name})
        if found is not None:
            return EmbeddingSpec.from_dict(found)
        known = list(connection.scalars(_NAMES))
    raise CatalogError(
        f"no embedding {name!r} is registered in database {connection.engine.url.database!r}"
        + (f"; it has {', '.join(known)}" if known else "; it has none")
    )


def reflect(connection: Connection, spec: EmbeddingSpec, encoder: Encoder | None = None) -> Column[Any]:
    """The column of ``spec`` in its reflected table, to be searched like a declared one.

    ``encoder``: instead of the one that the spec's configuration makes.
    """
    try:
        table = Table(spec.table, MetaData(), schema=spec.schema, autoload_with=connection)
    except NoSuchTableError:
        raise CatalogError(f"{spec.name}: there is no table {spec.table!r} in this database any more") from None
    if spec.column not in table.c:
        raise CatalogError(f"{spec.name}: table {spec.table!r} has no column {spec.column!r} any more")
    column = table.c[spec.column]
    column.type = embedding_type(Settings.of(spec, encoder or from_config(spec.encoder)))
    return column
