"""A target: one embedding as the database has it now, and the queue's statements composed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from psycopg import Connection, sql
from psycopg.rows import dict_row

from embeddb.catalog.blocks import blocks
from embeddb.metrics import Storage
from embeddb.spec import EmbeddingSpec

QUERIES = blocks("embeddb.queue", "queries.sql")


@dataclass(frozen=True, slots=True)
class Target:
    """One embedding, by the names of today. Load it anew after ``undefined_column`` or ``undefined_table``.

    ``spec`` keeps the names of the declaration: ``spec.sources`` label ``sources`` in order, for templates.
    ``match``: the condition that row ``t`` has key ``k.key``, composed by the catalog.
    """

    id: int
    name: str
    schema: str
    table: str
    column: str
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    dim: int
    storage: Storage
    state: str
    fingerprint: str | None
    spec: EmbeddingSpec
    vector_oid: int
    array_oid: int
    match: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """The target of a row of the block ``targets``."""
        spec = EmbeddingSpec.from_json(row["spec"])
        return cls(**{**row, "keys": tuple(row["keys"]), "sources": tuple(row["sources"]), "spec": spec})

    @property
    def qualified(self) -> sql.Identifier:
        """The table with its schema."""
        return sql.Identifier(self.schema, self.table)

    def statement(self, block: str) -> sql.Composed:
        """A block of ``queries.sql`` with this embedding's identifiers."""
        return sql.SQL(QUERIES[block]).format(
            table=self.qualified,
            column=sql.Identifier(self.column),
            sources=_columns(self.sources),
            # The text of the row of sources: every type has one. Not cryptographic: it tells changes, not forgeries.
            hash=sql.SQL("hashtextextended(ROW({})::text, 0)").format(_columns(self.sources)),
            match=sql.SQL(self.match),
        )


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("t", name) for name in names)


def targets(connection: Connection[Any], name: str | None = None) -> list[Target]:
    """The embedding of that name, or all of them; an unknown name is an error that lists the known ones."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return [Target.from_row(row) for row in cursor.execute(QUERIES["targets"], {"name": name})]
