"""Renames among what looks like a table or column that is gone and another that came: vectors are not thrown away.

Alembic cannot tell a rename from a drop and an addition, and leaves it to whoever reads the revision. Where vectors
would be lost, what looks like a rename is written as one; what was meant otherwise is changed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from alembic.operations import ops
from sqlalchemy.dialects import postgresql

from embeddb.migrate.found import Found, Key, read_indexes
from embeddb.migrate.rename_operations import RenameEmbeddedColumnOp, RenameEmbeddedTableOp
from embeddb.naming import index_name
from embeddb.orm import Declaration
from embeddb.spec import EmbeddingSpec, rename_fields

_DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
Pair = tuple[EmbeddingSpec, EmbeddingSpec]


class Renames:
    """Puts renames in the place of drops and additions in ``upgrade``, and the new names into ``found``.

    ``indexed``: columns whose vector index is renamed along, by their old names and their new ones.
    """

    def __init__(
        self, connection: Any, upgrade: ops.UpgradeOps, found: Found, declarations: Mapping[Key, Declaration]
    ) -> None:
        self.connection, self.upgrade, self.found = connection, upgrade, found
        self.declared = {key: declaration.spec for key, declaration in declarations.items()}
        self.indexed: set[Key] = set()

    def follow(self) -> None:
        """Look at tables first, then at the columns of each."""
        for drop, create in self._tables():
            self._rename_table(drop, create)
        for table in self.upgrade.ops:
            if isinstance(table, ops.ModifyTableOps):
                self._rename_columns(table)

    # --- tables ---------------------------------------------------------------------------------------------------

    def _tables(self) -> Iterator[tuple[ops.DropTableOp, ops.CreateTableOp]]:
        """Tables with embeddings that are gone, each with the only new one that has the same columns."""
        embedded = {(key.schema, key.table) for key in self.found.specs}
        drops = [op for op in self.upgrade.ops if isinstance(op, ops.DropTableOp)]
        creates = [op for op in self.upgrade.ops if isinstance(op, ops.CreateTableOp)]
        for drop in drops:
            alike = [create for create in creates if _columns(create) == _columns(drop)]
            rivals = [other for other in drops if _columns(other) == _columns(drop)]
            if (drop.schema, drop.table_name) in embedded and len(alike) == len(rivals) == 1:
                yield drop, alike[0]

    def _rename_table(self, drop: ops.DropTableOp, create: ops.CreateTableOp) -> None:
        old, new, schema = drop.table_name, create.table_name, drop.schema
        there = read_indexes(self.connection, schema, old)
        indexes: dict[str, str] = {}
        for key in [key for key in self.found.specs if (key.schema, key.table) == (schema, old)]:
            spec = self.found.specs.pop(key)
            renamed = key._replace(table=new)
            self.found.specs[renamed] = replace(spec, table=new)
            indexes |= self._index(there, spec, self.found.specs[renamed])
        place = self.upgrade.ops.index(drop)
        self.upgrade.ops[place] = RenameEmbeddedTableOp(old, new, schema, indexes)
        # What Alembic adds to the new table comes once it is called so.
        later = [op for op in self.upgrade.ops[:place] if _is_of(op, schema, new) and op is not create]
        before = [op for op in self.upgrade.ops[:place] if op not in later and op is not create]
        self.upgrade.ops = [*before, self.upgrade.ops[place], *later, *self.upgrade.ops[place + 1 :]]

    # --- columns --------------------------------------------------------------------------------------------------

    def _rename_columns(self, table: ops.ModifyTableOps) -> None:
        for found, wanted in list(self._embeddings(table)):
            renames = [(found.column, wanted.column)] if found.column != wanted.column else []
            renames += [(old, new) for old, new in zip(found.sources, wanted.sources, strict=True) if old != new]
            for old, new in renames:
                self._rename_column(table, old, new)

    def _embeddings(self, table: ops.ModifyTableOps) -> Iterator[Pair]:
        """Registered embeddings of a table, each with the declared one that it seems to have become."""
        here = (table.schema, table.table_name)
        gone = {op.column_name: _type(op.to_column()) for op in table.ops if isinstance(op, ops.DropColumnOp)}
        came = {op.column.name: _type(op.column) for op in table.ops if isinstance(op, ops.AddColumnOp)}
        for key, found in self.found.specs.items():
            if (key.schema, key.table) != here:
                continue
            alike = [
                spec
                for other, spec in self.declared.items()
                if (other.schema, other.table) == here and _becomes(found, spec, gone, came)
            ]
            if len(alike) == 1:
                yield found, alike[0]

    def _rename_column(self, table: ops.ModifyTableOps, old: str, new: str) -> None:
        there = read_indexes(self.connection, table.schema, table.table_name)
        drop = next((op for op in table.ops if isinstance(op, ops.DropColumnOp) and op.column_name == old), None)
        add = next((op for op in table.ops if isinstance(op, ops.AddColumnOp) and op.column.name == new), None)
        if drop is None or add is None:
            return  # a source of two embeddings, already renamed for the first
        indexes: dict[str, str] = {}
        for key in [key for key in self.found.specs if (key.schema, key.table) == (table.schema, table.table_name)]:
            spec = self.found.specs.pop(key)
            sources = tuple(new if source == old else source for source in spec.sources)
            renamed = replace(
                spec,
                column=new if spec.column == old else spec.column,
                sources=sources,
                template=rename_fields(spec.template, spec.sources, sources),
            )
            self.found.specs[key._replace(column=renamed.column)] = renamed
            if renamed.column != spec.column:
                indexes |= self._index(there, spec, renamed)
        rest = [op for op in table.ops if op not in (drop, add)]
        table.ops = [RenameEmbeddedColumnOp(table.table_name, old, new, table.schema, indexes), *rest]

    def _index(self, there: Mapping[str, Any], old: EmbeddingSpec, new: EmbeddingSpec) -> dict[str, str]:
        """The name of an embedding's vector index, and what it is to be, where the index is there."""
        if old.index is None:
            return {}
        before = index_name(old.table, old.column, old.index.method)
        if before not in there:
            return {}
        self.indexed |= {Key(new.schema, new.table, column) for column in (old.column, new.column)}
        return {before: index_name(new.table, new.column, old.index.method)}


def _becomes(found: EmbeddingSpec, wanted: EmbeddingSpec, gone: Mapping[str, str], came: Mapping[str, str]) -> bool:
    """Does ``wanted`` look like ``found`` with other names of columns?"""
    if (dict(found.encoder), found.dim, found.storage) != (dict(wanted.encoder), wanted.dim, wanted.storage):
        return False
    if len(found.sources) != len(wanted.sources):
        return False
    pairs = [(found.column, wanted.column), *zip(found.sources, wanted.sources, strict=True)]
    return all(old == new or (old in gone and gone[old] == came.get(new)) for old, new in pairs)


def _columns(op: ops.CreateTableOp | ops.DropTableOp) -> tuple[str | None, frozenset[str]]:
    return op.schema, frozenset(column.name for column in op.to_table().columns)


def _is_of(op: Any, schema: str | None, table: str) -> bool:
    return isinstance(op, ops.ModifyTableOps) and (op.schema, op.table_name) == (schema, table)


def _type(column: Any) -> str:
    return str(column.type.compile(dialect=_DIALECT))
