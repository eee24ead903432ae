"""Differences in words: what a comparison found, as a person would tell a colleague."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

from alembic.operations import MigrateOperation, ops

from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.column_operations import AddEmbeddingColumnOp, DropEmbeddingColumnOp
from embeddb.migrate.embedding_operations import (
    AlterEmbeddingOp,
    CreateEmbeddingOp,
    DisarmEmbeddingOp,
    DropEmbeddingOp,
    RefreshEmbeddingOp,
)
from embeddb.migrate.index_operations import CreateVectorIndexOp, DropVectorIndexOp, VectorIndex
from embeddb.migrate.reembed_operations import (
    AbandonEmbeddingOp,
    ExpandEmbeddingOp,
    RollBackEmbeddingOp,
    SwapEmbeddingOp,
)
from embeddb.migrate.rename_operations import RenameEmbeddedColumnOp, RenameEmbeddedTableOp
from embeddb.naming import embedding_name


def all_in_words(operations: Sequence[MigrateOperation]) -> Iterator[str]:
    """A sentence for each difference that these operations would mend."""
    dropped = {_place(operation): operation for operation in operations if isinstance(operation, DropVectorIndexOp)}
    created = {_place(operation) for operation in operations if isinstance(operation, CreateVectorIndexOp)}
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            yield from all_in_words(operation.ops)
        elif isinstance(operation, CreateVectorIndexOp) and _place(operation) in dropped:
            yield _changed_index(dropped[_place(operation)].index, operation.index)
        elif isinstance(operation, DropVectorIndexOp) and _place(operation) in created:
            continue
        elif not isinstance(operation, DisarmEmbeddingOp):  # which only makes way for another
            yield in_words(operation)


def _place(operation: CreateVectorIndexOp | DropVectorIndexOp) -> tuple[str | None, str]:
    return operation.index.schema, operation.index.name


def _changed_index(there: VectorIndex, wanted: VectorIndex) -> str:
    before, after = _about(there), _about(wanted)
    if before == after:
        return f"index {wanted.name}: there, and invalid, or over something else than in the models"
    return f"index {wanted.name}: {after} in the models and {before} in the database"


def _about(index: VectorIndex) -> str:
    options = "".join(f", {key}={value}" for key, value in index.options.items())
    where = f", where {index.where}" if index.where else ""
    return f"({index.method}, {index.expression or index.column}, {index.opclass}{options}{where})"


@singledispatch
def in_words(operation: Any) -> str:
    """What differs between the models and the database, where ``operation`` would mend it."""
    difference = operation.to_diff_tuple()
    about = difference[0] if isinstance(difference, list) else difference
    return " ".join(str(part) for part in about if part is not None)


@in_words.register
def _(operation: InstallEmbeddbOp) -> str:
    return "the catalog is not installed, and models declare embeddings"


@in_words.register
def _(operation: UpgradeEmbeddbOp) -> str:
    return f"the catalog is at version {operation.existing_version}, and this package has {operation.version}"


@in_words.register
def _(operation: AddEmbeddingColumnOp) -> str:
    name = embedding_name(operation.table, operation.column, operation.schema)
    return f"{name}: the models declare it as {operation.storage}({operation.dim}), and the table has no such column"


@in_words.register
def _(operation: DropEmbeddingColumnOp) -> str:
    name = embedding_name(operation.table, operation.column, operation.schema)
    return f"{name}: the table has this column of vectors, and no model declares it"


@in_words.register
def _(operation: CreateEmbeddingOp) -> str:
    return f"{operation.name}: declared, and not registered: no trigger queues its rows"


@in_words.register
def _(operation: DropEmbeddingOp) -> str:
    return f"{operation.name}: registered, and no model declares it"


@in_words.register
def _(operation: AlterEmbeddingOp) -> str:
    parts = [
        f"{key} is {value!r} in the models and {operation.existing.get(key)!r} in the database"
        for key, value in operation.changes.items()
    ]
    return f"{operation.name}: {'; '.join(parts)}"


@in_words.register
def _(operation: RefreshEmbeddingOp) -> str:
    return f"{operation.name}: its triggers or functions are not as they should be"


@in_words.register
def _(operation: ExpandEmbeddingOp) -> str:
    return f"{operation.name}: the models declare another encoder than the one whose vectors are there"


@in_words.register
def _(operation: SwapEmbeddingOp) -> str:
    return f"{operation.name}: the declared encoder's vectors are ready, and do not serve yet"


@in_words.register
def _(operation: AbandonEmbeddingOp) -> str:
    return f"{operation.name}: its encoder is being changed, and the models declare the one that it has"


@in_words.register
def _(operation: RollBackEmbeddingOp) -> str:
    return f"{operation.name}: its encoder was exchanged, and the models declare the one before: declare the new one"


@in_words.register
def _(operation: CreateVectorIndexOp) -> str:
    index = operation.index
    return f"index {index.name}: declared on {index.table} {_about(index)}, and not there"


@in_words.register
def _(operation: DropVectorIndexOp) -> str:
    return f"index {operation.index.name}: there on {operation.index.table}, and no model declares it as it is"


@in_words.register
def _(operation: RenameEmbeddedTableOp) -> str:
    return f"table {operation.table}: seems to be called {operation.new_table} in the models"


@in_words.register
def _(operation: RenameEmbeddedColumnOp) -> str:
    return f"column {operation.table}.{operation.column}: seems to be called {operation.new_column} in the models"


@in_words.register
def _(operation: ops.CreateTableOp) -> str:
    return f"table {operation.table_name}: declared, and not there"


@in_words.register
def _(operation: ops.DropTableOp) -> str:
    return f"table {operation.table_name}: there, and no model declares it"


@in_words.register
def _(operation: ops.AddColumnOp) -> str:
    return f"column {operation.table_name}.{operation.column.name}: declared, and not there"


@in_words.register
def _(operation: ops.DropColumnOp) -> str:
    return f"column {operation.table_name}.{operation.column_name}: there, and no model declares it"


@in_words.register
def _(operation: ops.CreateIndexOp) -> str:
    return f"index {operation.index_name}: declared on {operation.table_name}, and not there"


@in_words.register
def _(operation: ops.DropIndexOp) -> str:
    return f"index {operation.index_name}: there on {operation.table_name}, and no model declares it as it is"


@in_words.register
def _(operation: ops.AlterColumnOp) -> str:
    parts = []
    if operation.modify_type is not None:
        parts.append(f"its type is {operation.modify_type} in the models and {operation.existing_type} in the database")
    if operation.modify_nullable is not None:
        parts.append("the models let it be NULL" if operation.modify_nullable else "the models want it NOT NULL")
    if operation.modify_server_default is not False:
        parts.append("its server default differs")
    return f"column {operation.table_name}.{operation.column_name}: {'; '.join(parts) or 'it differs'}"
