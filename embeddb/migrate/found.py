"""What the database has: the catalog, its registrations by today's names, and vector indexes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sqlalchemy import Connection, text

from embeddb.catalog.blocks import blocks
from embeddb.catalog.install import status
from embeddb.errors import PgvectorMissing
from embeddb.spec import EmbeddingSpec, rename_fields

_SQL = blocks("embeddb.migrate", "found.sql")


class Key(NamedTuple):
    """A column: its schema (None for the default one), table and name."""

    schema: str | None
    table: str
    column: str

    @property
    def place(self) -> tuple[str, str, str]:
        """By which columns are told in order."""
        return (self.schema or "", self.table, self.column)


class Change(NamedTuple):
    """An encoder that is being changed: the shadow's column, its declaration, and whether it can be swapped.

    ``sources``: of the shadow as it is, which once they are swapped is the old one.
    """

    state: str
    shadow: Key
    spec: EmbeddingSpec
    ready: bool
    sources: tuple[str, ...]


class Signature(NamedTuple):
    """All that makes an index what it is, as Postgres itself writes it."""

    method: str
    expressions: tuple[str, ...]
    opclasses: tuple[str, ...]
    options: tuple[str, ...]
    where: str | None


class FoundIndex(NamedTuple):
    """A vector index of a table. ``column``: the first column that it is over."""

    name: str
    column: str
    signature: Signature
    valid: bool
    is_expression: bool
    options: tuple[str, ...]  # in their order, which a dump has


@dataclass(slots=True)
class Found:
    """The catalog of a database."""

    installed: int = 0
    available: int = 0
    specs: dict[Key, EmbeddingSpec] = field(default_factory=dict)
    changes: dict[Key, Change] = field(default_factory=dict)
    problems: dict[Key, list[str]] = field(default_factory=dict)

    @property
    def shadows(self) -> set[Key]:
        """Columns that are embeddb's own: they are there while an encoder is being changed."""
        return {change.shadow for change in self.changes.values()}


def read_catalog(connection: Connection, schemas: Collection[str | None]) -> Found:
    """What is installed and registered, in these schemas."""
    try:
        about = status(connection)
    except PgvectorMissing:
        return Found()
    found = Found(about.installed, about.available)
    if not about.installed:
        return found
    default = connection.dialect.default_schema_name
    # An older catalog has not all that is asked of this one.
    query = _SQL["embeddings" if about.installed >= about.available else "embeddings_of_older"]
    for row in connection.exec_driver_sql(query).mappings():
        schema = None if row["schema"] == default else row["schema"]
        if schema not in schemas:
            continue
        key = Key(schema, row["table"], row["column"])
        # By today's names; the schema as it was declared.
        spec = EmbeddingSpec.from_json(row["spec"])
        sources = tuple(row["sources"])
        template = rename_fields(spec.template, spec.sources, sources)
        spec = replace(spec, table=key.table, column=key.column, sources=sources, template=template, schema=schema)
        found.specs[key] = spec
        if row["problems"]:
            found.problems[key] = list(row["problems"])
        if row["state"] is not None:
            shadow = Key(schema, row["table"], row["shadow"])
            coming = replace(EmbeddingSpec.from_json(row["next"]), schema=schema)
            found.changes[key] = Change(row["state"], shadow, coming, row["ready"], tuple(row["shadow_sources"]))
    for shadow in found.shadows:
        found.specs.pop(shadow, None)
    return found


def read_indexes(connection: Connection, schema: str | None, table: str) -> dict[str, FoundIndex]:
    """The HNSW and IVFFlat indexes of a table, by name."""
    parameters = {"schema": schema or connection.dialect.default_schema_name, "table": table}
    rows = connection.execute(text(_SQL["indexes"]), parameters).mappings()
    return {
        row["name"]: FoundIndex(
            row["name"],
            row["column"],
            Signature(
                row["method"],
                tuple(row["expressions"]),
                tuple(row["opclasses"]),
                tuple(sorted(row["options"])),
                row["where"],
            ),
            row["valid"],
            row["is_expression"],
            tuple(row["options"]),
        )
        for row in rows
    }


def is_partitioned(connection: Connection, schema: str | None, table: str) -> bool:
    """Is this a partitioned table? Postgres builds and drops none of their indexes concurrently."""
    parameters = {"schema": schema or connection.dialect.default_schema_name, "table": table}
    return bool(connection.execute(text(_SQL["partitioned"]), parameters).scalar())
