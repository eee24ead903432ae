"""A target: one embedding as the database has it now, and the queue's statements composed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from psycopg import Connection, sql
from psycopg.rows import dict_row

from embeddb.catalog.blocks import blocks
from embeddb.catalog.errors import catalog_errors
from embeddb.metrics import Storage
from embeddb.spec import EmbeddingSpec

QUERIES = blocks("embeddb.queue", "queries.sql")

_LONG: Final = ("bytea", "text", "character varying", "character")


class TargetChanged(Exception):
    """Its table or a column of it has another name than when the target was loaded: load it anew."""


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
    key_types: tuple[str, ...]
    sources: tuple[str, ...]
    source_types: tuple[str, ...]
    dim: int
    storage: Storage
    state: str
    fingerprint: str | None
    spec: EmbeddingSpec
    vector_oid: int
    array_oid: int
    type_schema: str
    match: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """The target of a row of the block ``targets``."""
        spec = EmbeddingSpec.from_json(row["spec"])
        lists = {name: tuple(row[name]) for name in ("keys", "key_types", "sources", "source_types")}
        return cls(**{**row, **lists, "spec": spec})

    @property
    def qualified(self) -> sql.Identifier:
        """The table with its schema."""
        return sql.Identifier(self.schema, self.table)

    def statement(self, block: str) -> sql.Composed:
        """A block of ``queries.sql`` with this embedding's identifiers."""
        keys, sources, vector = _columns(self.keys), _columns(self.sources), sql.Identifier("t", self.column)
        return sql.SQL(QUERIES[block]).format(
            table=self.qualified,
            column=sql.Identifier(self.column),
            keys=keys,
            key=sql.SQL("to_jsonb({})" if len(self.keys) == 1 else "jsonb_build_array({})").format(keys),
            after=sql.SQL(", ").join(self._key_parts()),
            sources=sources,
            # The text of the row of sources: every type has one. Not cryptographic: it tells changes, not forgeries.
            hash=sql.SQL("hashtextextended(ROW({})::text, 0)").format(sources),
            size=self._size(),
            send=sql.SQL("{}({})").format(sql.Identifier(self.type_schema, f"{self.storage}_send"), vector),
            match=sql.SQL(self.match),
        )

    def check_names(self, connection: Connection[Any]) -> None:
        """Raise TargetChanged where names are no longer the target's.

        After a statement over the table, in its transaction: from then on no name can change before its end. Names that
        were exchanged for each other would else let a vector into the wrong column without an error.
        """
        row = connection.execute(QUERIES["names"], {"embedding": self.id}).fetchone()
        if row is None or (row[0], row[1], tuple(row[2]), tuple(row[3]), row[4]) != (
            *(self.schema, self.table, self.keys, self.sources, self.column),
        ):
            raise TargetChanged(self.name)

    def _size(self) -> sql.Composed:
        # The length of a text or of bytes is known without unpacking it; of other types the packed size is.
        sizes = [
            sql.SQL("coalesce({}({}), 0)").format(
                sql.SQL("octet_length" if type_ in _LONG else "pg_column_size"), sql.Identifier("t", name)
            )
            for name, type_ in zip(self.sources, self.source_types, strict=True)
        ]
        return sql.SQL("{}::bigint").format(sql.SQL("::bigint + ").join(sizes))

    def _key_parts(self) -> list[sql.Composed]:
        # The types come from format_type, which quotes what needs quoting.
        if len(self.keys) == 1:
            return [sql.SQL("(k.key #>> '{{}}')::{}").format(sql.SQL(self.key_types[0]))]
        return [
            sql.SQL("(k.key ->> {})::{}").format(sql.Literal(place), sql.SQL(type_))
            for place, type_ in enumerate(self.key_types)
        ]


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("t", name) for name in names)


def targets(connection: Connection[Any], name: str | None = None) -> list[Target]:
    """The embedding of that name, or all. Raises CatalogError, which lists the known ones, or CatalogMissing."""
    with catalog_errors(), connection.cursor(row_factory=dict_row) as cursor:
        return [Target.from_row(row) for row in cursor.execute(QUERIES["targets"], {"name": name})]
