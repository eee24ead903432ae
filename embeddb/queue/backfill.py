"""A backfill: rows that are there already, queued behind fresh ones, and how many of them are still to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection, bindparam, text

from embeddb.catalog.errors import catalog_errors
from embeddb.catalog.install import require

_FIND = text(
    "SELECT id, name FROM embeddb.embeddings WHERE cast(:names AS text[]) IS NULL"
    " OR id IN (SELECT embeddb.find(n) FROM unnest(cast(:names AS text[])) AS n) ORDER BY name"
)
_QUEUE = text("SELECT embeddb.backfill(:name, :everything)")
_FORGET_FINGERPRINT = text(
    "UPDATE embeddb.encoder SET fingerprint = NULL WHERE id IN (SELECT encoder FROM embeddb.embedding WHERE id = :id)"
)
_FORGET_QUERIES = text(
    "DELETE FROM embeddb.query_cache WHERE encoder IN (SELECT encoder FROM embeddb.embedding WHERE id = :id)"
)
_PENDING = text(
    "SELECT coalesce(sum((embeddb.count_pending(id)).pending), 0) FROM embeddb.embedding WHERE id IN :ids"
).bindparams(bindparam("ids", expanding=True))


@dataclass(frozen=True, slots=True)
class Backfill:
    """Embeddings by id and name."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, connection: Connection, names: Sequence[str] | None = None) -> Self:
        """The embeddings of these names, or all. Raises CatalogError, which lists the known ones, or CatalogMissing."""
        require(connection)
        with catalog_errors():
            found = connection.execute(_FIND, {"names": names if names is None else list(names)}).all()
        return cls(tuple(row.id for row in found), tuple(row.name for row in found))

    def queue(self, connection: Connection, *, everything: bool = False) -> int:
        """Queue rows without a vector, or all; how many. The next worker notes its encoder's fingerprint, if all."""
        total = 0
        for key, name in zip(self.ids, self.names, strict=True):
            if everything:
                connection.execute(_FORGET_FINGERPRINT, {"id": key})
                connection.execute(_FORGET_QUERIES, {"id": key})
            total += connection.scalar(_QUEUE, {"name": name, "everything": everything}) or 0
        return total

    def pending(self, connection: Connection) -> int:
        """Rows that are queued now."""
        return int(connection.scalar(_PENDING, {"ids": self.ids}) or 0)
