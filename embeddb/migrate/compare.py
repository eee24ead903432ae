"""What autogenerate finds: the catalog, registrations, columns and indexes that differ from the models.

It runs after Alembic's own comparison, and puts right what that cannot know: vector indexes are compared by what
Postgres makes of them, columns of embeddings are added and dropped with care for their vectors, and what is embeddb's
own never shows up as something to drop.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from alembic.operations import MigrateOperation, ops
from sqlalchemy import MetaData, Table
from sqlalchemy.orm import configure_mappers

from embeddb.encoders import Encoder
from embeddb.encoders.identity import portable, same_encoder
from embeddb.migrate.arguments import changed
from embeddb.migrate.beforehand import go_on, metadatas
from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.column_compare import hold_back, last_column_first, postpone
from embeddb.migrate.column_operations import AddEmbeddingColumnOp, DropEmbeddingColumnOp
from embeddb.migrate.embedding_operations import (
    AlterEmbeddingOp,
    CreateEmbeddingOp,
    DisarmEmbeddingOp,
    DropEmbeddingOp,
    RefreshEmbeddingOp,
)
from embeddb.migrate.filters import Filters
from embeddb.migrate.found import Key, read_catalog
from embeddb.migrate.history_compare import compare_histories
from embeddb.migrate.index_compare import compare_indexes, described, is_vector_index, shadow_indexes
from embeddb.migrate.index_operations import CreateVectorIndexOp
from embeddb.migrate.reembed_operations import (
    AbandonEmbeddingOp,
    ExpandEmbeddingOp,
    RollBackEmbeddingOp,
    SwapEmbeddingOp,
)
from embeddb.migrate.renames import Renames
from embeddb.migrate.script import log
from embeddb.migrate.types import rendering_types
from embeddb.migrate.weights import changed_weights
from embeddb.migrate.words import all_in_words
from embeddb.naming import CATALOG
from embeddb.orm import Declaration, declared
from embeddb.orm.history import histories_in
from embeddb.orm.settings import settings_of
from embeddb.spec import EmbeddingSpec

#: As ``context.configure(..., embeddb_concurrently=False)``: build indexes of existing tables inside the transaction.
CONCURRENTLY: Final = "embeddb_concurrently"
#: As ``context.configure(..., embeddb_fingerprints=False)``: do not ask encoders whether their models have changed.
FINGERPRINTS: Final = "embeddb_fingerprints"

#: Where Alembic's own comparisons are told, so that its usual settings show these too.
detected = logging.getLogger("alembic.autogenerate.embeddb")


def compare(context: Any, upgrade: ops.UpgradeOps, schemas: Collection[str | None]) -> Any:
    """Alembic's comparator: completes ``upgrade`` with what is embeddb's."""
    if context.dialect.name == "postgresql":
        _Comparison(context, upgrade, schemas).run()
    return go_on()


class _Comparison:
    """One run of autogenerate."""

    def __init__(self, context: Any, upgrade: ops.UpgradeOps, schemas: Collection[str | None]) -> None:
        self.context, self.upgrade, self.schemas = context, upgrade, schemas
        self.filters = Filters(context)
        self.metadatas = metadatas(context)
        configure_mappers()  # which tells attributes from columns
        self.histories = {
            Key(self._schema(found.users), found.users.name, found.column.name): found
            for one in self.metadatas
            for found in histories_in(one)
            if self._is_included(found.users) and self.filters.has_column(found.column)
        }
        self.declarations: dict[Key, Declaration] = {
            Key(self._schema(found.table), found.table.name, found.column.name): found
            for one in self.metadatas
            for found in declared(one)
            if self._is_included(found.table) and self.filters.has_column(found.column)
        }
        self.found = read_catalog(context.connection, schemas)
        self.renames = Renames(context.connection, upgrade, self.found, self.declarations)
        self.before: list[MigrateOperation] = []
        self.after: list[MigrateOperation] = []

    def run(self) -> None:
        self._catalog()
        self._forget_own()
        self.renames.follow()
        self._registrations()
        self._columns()
        drops, creates = compare_histories(self.context.connection, self.histories, self._is_concerned)
        self.before += drops
        self.after += creates
        self._indexes()
        self.upgrade.ops = [*self.before, *self.upgrade.ops, *self.after]
        self._tell()
        self.context.opts["render_item"] = rendering_types(self.context.opts.get("render_item"))

    def _tell(self) -> None:
        """In words, as Alembic tells what it finds itself; and models that have changed, which no operation mends."""
        for words in all_in_words([*self.before, *self.after]):
            detected.info("Detected: %s", words)
        if not self.context.opts.get(FINGERPRINTS, True) or not 0 < self.found.installed >= self.found.available:
            return
        for weights in changed_weights(self.context.connection, self._encoders(), others=False):
            detected.log(logging.INFO if weights.error else logging.WARNING, "%s", weights)

    def _encoders(self) -> dict[str, Encoder]:
        return {declaration.spec.name: declaration.encoder for declaration in self.declarations.values()}

    def _catalog(self) -> None:
        if not self.declarations and not self.histories:
            return
        if not self.found.installed:
            self.before.append(InstallEmbeddbOp())
        elif self.found.installed < self.found.available:
            self.before.append(UpgradeEmbeddbOp(self.found.available, self.found.installed))

    # --- what is embeddb's own -----------------------------------------------------------------------------------

    def _forget_own(self) -> None:
        self.upgrade.ops = [op for op in self.upgrade.ops if not _of_catalog(op)]
        for table in self._modified():
            table.ops = [op for op in table.ops if not self._is_own(table, op)]

    def _is_own(self, table: ops.ModifyTableOps, op: MigrateOperation) -> bool:
        if isinstance(op, ops.DropColumnOp):
            return Key(table.schema, table.table_name, op.column_name) in self.found.shadows
        return isinstance(op, ops.CreateIndexOp | ops.DropIndexOp) and self._is_compared(table, op)

    def _is_compared(self, table: ops.ModifyTableOps, op: ops.CreateIndexOp | ops.DropIndexOp) -> bool:
        """Is this a vector index, and none that the models say too little of to compare it?"""
        model = self._table(table.schema, table.table_name)
        declared = [index for index in model.indexes if index.name == op.index_name] if model is not None else []
        unknown = [index for index in declared if is_vector_index(index) and not described(index, self.context.dialect)]
        return is_vector_index(op.to_index()) and not unknown

    def _modified(self) -> Iterator[ops.ModifyTableOps]:
        return (op for op in self.upgrade.ops if isinstance(op, ops.ModifyTableOps))

    # --- registrations --------------------------------------------------------------------------------------------

    def _registrations(self) -> None:
        # Table by table, the last that was registered first: the way back registers them as they were, and the first of
        # a table has the short names for its functions.
        last_first = reversed(self.found.specs.items())
        for key, found in sorted(last_first, key=lambda item: item[0].place[:2]):
            if key not in self.declarations and self._is_concerned(key):
                self.before.append(DropEmbeddingOp(key.table, key.column, key.schema, existing=found))
        for key, declaration in sorted(self.declarations.items(), key=lambda item: item[0].place[:2]):
            wanted = declaration.spec
            registered = self.found.specs.get(key)
            if registered is None:
                self.after.append(CreateEmbeddingOp(wanted))
            elif key in self.found.changes and self.found.changes[key].state == "filling":
                self._filling(key, registered, wanted)
            elif _same(registered, wanted):
                if key in self.found.problems:
                    self.after.append(RefreshEmbeddingOp(key.table, key.column, key.schema, disarmed=False))
            elif self._is_exchanged(key, wanted):
                self.after.append(RollBackEmbeddingOp(key.table, key.column, key.schema))
            elif self._expands(key):
                self.after.append(ExpandEmbeddingOp(wanted))
                indexes = shadow_indexes(declaration, self.context.dialect, concurrently=self._concurrently)
                self.after += [CreateVectorIndexOp(index) for index in indexes]
            else:
                changes, existing = changed(registered, wanted)
                self.after.append(AlterEmbeddingOp(key.table, key.column, key.schema, changes, existing))

    def _is_concerned(self, key: Key) -> bool:
        """Is this column, which the database has, of the models and compared, or one that Alembic is to drop?"""
        table = self._table(key.schema, key.table)
        if table is None:
            dropped = {(op.schema, op.table_name) for op in self.upgrade.ops if isinstance(op, ops.DropTableOp)}
            return (key.schema, key.table) in dropped
        plain = next((column for column in table.columns if column.name == key.column), None)
        if plain is not None:
            return self._is_included(table) and self.filters.has_column(plain)
        modified = (op for one in self._modified() if (one.schema, one.table_name) == key[:2] for op in one.ops)
        return any(isinstance(op, ops.DropColumnOp) and op.column_name == key.column for op in modified)

    def _is_exchanged(self, key: Key, wanted: EmbeddingSpec) -> bool:
        """Has another encoder taken the place of the declared one, whose column is still kept up to date?"""
        change = self.found.changes.get(key)
        return change is not None and change.state == "swapped" and _same(change.spec, wanted)

    def _filling(self, key: Key, found: EmbeddingSpec, wanted: EmbeddingSpec) -> None:
        change = self.found.changes[key]
        if _same(found, wanted):
            self.after.append(AbandonEmbeddingOp(key.table, key.column, key.schema, existing=change.spec))
        elif not _same(change.spec, wanted):
            log.warning("%s: its encoder is being changed to another than is declared; abandon that first", wanted.name)
        elif change.ready:
            self.after.append(SwapEmbeddingOp(key.table, key.column, key.schema))
        else:
            log.info("%s: the new encoder's column is being filled, or has no index yet", wanted.name)

    def _expands(self, key: Key) -> bool:
        """Is another encoder declared than the one whose vectors are there?"""
        found, wanted = self.found.specs.get(key), self.declarations[key].spec
        if found is None:
            return False
        return not same_encoder(found.encoder, wanted.encoder) or found.dim != wanted.dim

    # --- columns --------------------------------------------------------------------------------------------------

    def _columns(self) -> None:
        for table in self._modified():
            done: list[MigrateOperation] = []
            for op in last_column_first(self.context.connection, table):
                done += self._column(table, op)
            table.ops = done
            here = (table.schema, table.table_name)
            altered = {key for key in self.declarations if key[:2] == here and key in self.found.specs}
            serving = {key for key in altered if self._expands(key) or key in self.found.changes}
            hold_back(table, [name for key in serving for name in self._sources(key)])
            self.after += postpone(table, [name for key in altered - serving for name in self._sources(key)])

    def _sources(self, key: Key) -> tuple[str, ...]:
        """What an embedding is made of in the database, and what its other column is while its encoder changes."""
        change = self.found.changes.get(key)
        return self.found.specs[key].sources + (change.sources if change is not None else ())

    def _column(self, table: ops.ModifyTableOps, op: MigrateOperation) -> list[MigrateOperation]:
        if isinstance(op, ops.AddColumnOp):
            said = settings_of(op.column.type)
            pooled = Key(table.schema, table.table_name, op.column.name) in self.histories  # which is made anew at once
            if said is not None and not pooled and op.column.nullable and op.column.server_default is None:
                about = (table.table_name, op.column.name, said.storage, said.dim, table.schema)
                return [AddEmbeddingColumnOp(*about, comment=op.column.comment)]
        elif isinstance(op, ops.DropColumnOp):
            found = self.found.specs.get(Key(table.schema, table.table_name, op.column_name))
            if found is not None:
                about = (found.table, found.column, found.storage, found.dim, table.schema)
                return [DropEmbeddingColumnOp(*about, "drop", comment=op.to_column().comment)]
        elif isinstance(op, ops.AlterColumnOp) and op.modify_type is not None:
            return self._type_change(Key(table.schema, table.table_name, op.column_name), op)
        return [op]

    def _type_change(self, key: Key, op: ops.AlterColumnOp) -> list[MigrateOperation]:
        if key in self.declarations and (self._expands(key) or key in self.found.changes):
            op.modify_type = None  # the new column has the new type
            return [op] if op.has_changes() else []
        if key in self.declarations:
            spec = self.declarations[key].spec
            column = self.context.dialect.identifier_preparer.quote_identifier(spec.column)
            op.kw["postgresql_using"] = f"{column}::{spec.storage}({spec.dim})"
        concerned = [
            found
            for found in (*self.found.specs.values(), *(c.spec for c in self.found.changes.values()))
            if (found.schema, found.table) == (key.schema, key.table)
            and key.column in (*found.sources, found.column, *self._keys(key))
        ]
        names = [(found.table, found.column, found.schema) for found in concerned]
        return [*(DisarmEmbeddingOp(*name) for name in names), op, *(RefreshEmbeddingOp(*name) for name in names)]

    def _keys(self, key: Key) -> list[str]:
        table = self._table(key.schema, key.table)
        return [] if table is None else [column.name for column in table.primary_key]

    def _table(self, schema: str | None, name: str) -> Table | None:
        tables = (table for one in self.metadatas for table in one.tables.values())
        return next((table for table in tables if (self._schema(table), table.name) == (schema, name)), None)

    def _schema(self, table: Table) -> str | None:
        """As Alembic has it: None for the default schema, which a model may name."""
        return None if table.schema == self.context.dialect.default_schema_name else table.schema

    # --- indexes --------------------------------------------------------------------------------------------------

    @property
    def _concurrently(self) -> bool:
        return bool(self.context.opts.get(CONCURRENTLY, True))

    def _indexes(self) -> None:
        new = {(op.schema, op.table_name) for op in self.upgrade.ops if isinstance(op, ops.CreateTableOp)}
        gone = [op for op in self.upgrade.ops if isinstance(op, ops.DropTableOp)]
        connection = self.context.connection
        for table in (table for one in self.metadatas for table in one.sorted_tables):
            if not self._is_included(table):
                continue
            if (self._schema(table), table.name) in new:
                vector = (index for index in table.indexes if is_vector_index(index) and self.filters.has_index(index))
                given = filter(None, (described(index, self.context.dialect) for index in vector))
                self.after += [CreateVectorIndexOp(index) for index in sorted(given, key=attrgetter("name"))]
                continue
            about = {"skip": self._left_alone(table), "retyped": self._retyped(table)}
            before, after = compare_indexes(connection, table, self.filters, **about, concurrently=self._concurrently)
            self.before += before
            self.after += after
        for op in gone:
            bare = Table(op.table_name, MetaData(), schema=op.schema)
            self.before += compare_indexes(connection, bare, self.filters)[0]

    def _retyped(self, table: Table) -> set[str]:
        here = (self._schema(table), table.name)
        modified = (op for one in self._modified() if (one.schema, one.table_name) == here for op in one.ops)
        return {op.column_name for op in modified if isinstance(op, ops.AlterColumnOp) and op.modify_type is not None}

    def _is_included(self, table: Table) -> bool:
        return self.filters.has_table(table) and self._schema(table) in self.schemas

    def _left_alone(self, table: Table) -> set[str]:
        """Columns that the project leaves out, and whose indexes belong to a change of encoder, or to a rename."""
        keys = {
            *self.found.changes,
            *self.found.shadows,
            *self.renames.indexed,
            *filter(self._expands, self.declarations),
        }
        hidden = {column.name for column in table.columns if not self.filters.has_column(column)}
        return hidden | {key.column for key in keys if (key.schema, key.table) == (self._schema(table), table.name)}


def _of_catalog(op: MigrateOperation) -> bool:
    return getattr(op, "schema", None) == CATALOG


def _same(one: EmbeddingSpec, other: EmbeddingSpec) -> bool:
    """Where the table is has been compared already, and the default schema may be named or not."""
    first, second = (replace(spec, schema=None, encoder=portable(spec.encoder)).to_json() for spec in (one, other))
    return first == second
