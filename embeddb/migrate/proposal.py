"""A change of one embedding's storage and index as a revision, before any model declares it.

Autogenerate writes it: the table is reflected, declared anew with what is proposed, and compared with the database as
it is. So the revision is the one that autogenerate would write once the models declare the same, and after it there is
nothing left to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.config import Config
from alembic.operations import MigrateOperation, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import rev_id
from psycopg import sql
from sqlalchemy import Column, Connection, MetaData, Table

from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName, Storage
from embeddb.migrate import setup
from embeddb.migrate.embedding_operations import AlterEmbeddingOp, DisarmEmbeddingOp, RefreshEmbeddingOp
from embeddb.migrate.found import Key, read_catalog, read_indexes
from embeddb.migrate.index_operations import CreateVectorIndexOp, DropVectorIndexOp, ReplaceVectorIndexOp
from embeddb.naming import index_name
from embeddb.orm.declaration import INFO_KEY, Declaration
from embeddb.orm.elsewhere import settings_elsewhere
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.index_expression import declared_index
from embeddb.spec import VectorIndex

_OURS: Final = (AlterEmbeddingOp, DisarmEmbeddingOp, RefreshEmbeddingOp)
_BUILDS: Final = (CreateVectorIndexOp, ReplaceVectorIndexOp)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A column as it is to be. ``memory``: maintenance_work_mem to build its index with, as SET takes it."""

    table: str
    column: str
    dim: int
    metric: MetricName
    storage: Storage
    index: VectorIndex | None
    schema: str | None = None
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """What a revision does, as Python source, indented. ``imports``: lines of it."""

    upgrades: str
    downgrades: str
    imports: str


def body(connection: Connection, proposal: Proposal) -> Body | None:
    """The revision that makes a column what is proposed; None where it is that already. Changes nothing."""
    setup()
    default = connection.dialect.default_schema_name
    schema = None if proposal.schema == default else proposal.schema
    key = Key(schema, proposal.table, proposal.column)
    table = _declared_anew(connection, proposal, key)

    def is_included(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        return kind != "table" or (item.schema, name) == (schema, proposal.table)

    options = {
        "target_metadata": table.metadata,
        "include_object": is_included,
        "include_schemas": schema is not None,
        "compare_type": True,
    }
    context = MigrationContext.configure(connection, opts=options)
    script = produce_migrations(context, table.metadata)
    assert script.upgrade_ops is not None
    upgrade = ops.UpgradeOps(list(_with_memory(_concerning(script.upgrade_ops.ops, key), proposal.memory)))
    if not upgrade.ops:
        return None
    downgrade = ops.DowngradeOps([op.reverse() for op in reversed(upgrade.ops) if not isinstance(op, ops.ExecuteSQLOp)])
    render_item = context.opts["render_item"]
    rendered = [
        render_python_code(part, render_item=render_item, migration_context=context) for part in (upgrade, downgrade)
    ]
    imports = "import embeddb" if re.search(r"\bembeddb\.[A-Z]", "".join(rendered)) else ""
    return Body(rendered[0], rendered[1], imports)


def write(connection: Connection, found: Body, config: Path, message: str) -> Path:
    """Write it into the project of that ``alembic.ini``, after its head.

    Raises DeclarationError where the database is not at the head, for what was compared is older than the models then.
    """
    scripts = ScriptDirectory.from_config(Config(str(config)))
    current = set(MigrationContext.configure(connection).get_current_heads())
    if current and current != set(scripts.get_heads()):
        raise DeclarationError(
            f"the database is at {', '.join(sorted(current))} and the newest revision is "
            f"{', '.join(sorted(scripts.get_heads()))}: run alembic upgrade head first"
        )
    made = scripts.generate_revision(
        rev_id(), message, upgrades=found.upgrades, downgrades=found.downgrades, imports=found.imports
    )
    assert made is not None
    return Path(made.path)


def _declared_anew(connection: Connection, proposal: Proposal, key: Key) -> Table:
    """The table as it is, but for the column that is proposed."""
    table = Table(proposal.table, MetaData(), schema=key.schema, autoload_with=connection)
    column: Column[Any] = table.columns[proposal.column]
    present = read_indexes(connection, key.schema, key.table)
    for index in list(table.indexes):
        if index.name in present and present[index.name].column == key.column:
            table.indexes.discard(index)
    registered = read_catalog(connection, {key.schema}).specs.get(key)
    settings = settings_elsewhere(proposal.dim, proposal.metric, proposal.storage, proposal.index)
    column.type = embedding_type(settings)
    column.autoincrement = "auto"  # as a model has it: what was reflected is no part of the change
    if registered is not None:
        declaration = Declaration(settings, column, registered.sources)
        declaration.spec = replace(registered, storage=proposal.storage, index=proposal.index)
        column.info[INFO_KEY] = declaration
    if proposal.index is not None:
        declared_index(index_name(table.name, column.name, proposal.index.method), column, settings)
    return table


def _concerning(found: Iterable[MigrateOperation], key: Key) -> Iterator[MigrateOperation]:
    """What changes this column: nothing of the table's others, nor of other embeddings."""
    for op in found:
        if isinstance(op, ops.ModifyTableOps):
            kept = list(_concerning(op.ops, key))
            if kept:
                yield ops.ModifyTableOps(op.table_name, kept, schema=op.schema)
        elif isinstance(op, ops.AlterColumnOp):
            if op.column_name == key.column and op.modify_type is not None:
                yield op
        elif isinstance(op, _OURS):
            if (op.table, op.column) == (key.table, key.column):
                yield op
        elif isinstance(op, (*_BUILDS, DropVectorIndexOp)) and op.index.column == key.column:
            yield op


def _with_memory(found: Iterable[MigrateOperation], memory: str | None) -> Iterator[MigrateOperation]:
    """The memory to build with around what builds an index."""
    for op in found:
        if memory is None or not isinstance(op, _BUILDS):
            yield op
            continue
        setting = sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(memory))
        yield ops.ExecuteSQLOp(setting.as_string(None))
        yield op
        yield ops.ExecuteSQLOp("RESET maintenance_work_mem")
