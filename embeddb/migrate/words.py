"""Differences in words: what a comparison found, as a person would tell a colleague."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

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
from embeddb.migrate.history_operations import CreateHistoryOp, DropHistoryOp
from embeddb.migrate.index_operations import (
    CreateVectorIndexOp,
    DropVectorIndexOp,
    RenameVectorIndexOp,
    ReplaceVectorIndexOp,
    VectorIndex,
)
from embeddb.migrate.reembed_operations import (
    AbandonEmbeddingOp,
    ExpandEmbeddingOp,
    RollBackEmbeddingOp,
    SwapEmbeddingOp,
)
from embeddb.migrate.rename_operations import RenameEmbeddedColumnOp, RenameEmbeddedTableOp

#: What differs where an operation would mend it. ``op`` is the operation.
_WORDS: Final[dict[type[MigrateOperation], str]] = {
    InstallEmbeddbOp: "the catalog is not installed, and models declare embeddings",
    UpgradeEmbeddbOp: "the catalog is at version {op.existing_version}, and this package has {op.version}",
    AddEmbeddingColumnOp: "column {op.table}.{op.column}: declared as {op.storage}({op.dim}), and not there",
    DropEmbeddingColumnOp: "column {op.table}.{op.column}: there, with vectors, and no model declares it",
    CreateEmbeddingOp: "{op.name}: declared, and not registered: no trigger queues its rows",
    DropEmbeddingOp: "{op.name}: registered, and no model declares it",
    RefreshEmbeddingOp: "{op.name}: its triggers or functions are not as they should be",
    ExpandEmbeddingOp: "{op.name}: the models declare another encoder than the one whose vectors are there",
    SwapEmbeddingOp: "{op.name}: the declared encoder's vectors are ready, and do not serve yet",
    AbandonEmbeddingOp: "{op.name}: its encoder is being changed, and the models declare the one that it has",
    RollBackEmbeddingOp: (
        "{op.name}: its encoder was exchanged, and the models declare the one before: declare the new one"
    ),
    DropVectorIndexOp: "index {op.index.name}: there on {op.index.table}, and no model declares it as it is",
    RenameVectorIndexOp: "index {op.name}: called {op.new_name} in the models",
    CreateHistoryOp: "{op.name}: a declared history, and no triggers keep it up as it is declared",
    DropHistoryOp: "{op.name}: a history that triggers keep up, and no model declares it as it is",
    RenameEmbeddedTableOp: "table {op.table}: seems to be called {op.new_table} in the models",
    RenameEmbeddedColumnOp: "column {op.table}.{op.column}: seems to be called {op.new_column} in the models",
    ops.CreateTableOp: "table {op.table_name}: declared, and not there",
    ops.DropTableOp: "table {op.table_name}: there, and no model declares it",
    ops.AddColumnOp: "column {op.table_name}.{op.column.name}: declared, and not there",
    ops.DropColumnOp: "column {op.table_name}.{op.column_name}: there, and no model declares it",
    ops.CreateIndexOp: "index {op.index_name}: declared on {op.table_name}, and not there",
    ops.DropIndexOp: "index {op.index_name}: there on {op.table_name}, and no model declares it as it is",
}


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


def in_words(operation: Any) -> str:
    """What differs between the models and the database, where ``operation`` would mend it."""
    if type(operation) in _WORDS:
        return _WORDS[type(operation)].format(op=operation)
    if isinstance(operation, CreateVectorIndexOp):
        index = operation.index
        return f"index {index.name}: declared on {index.table} {_about(index)}, and not there"
    if isinstance(operation, ReplaceVectorIndexOp) and operation.existing is not None:
        return _changed_index(operation.existing, operation.index)
    if isinstance(operation, AlterEmbeddingOp):
        return _altered_embedding(operation)
    if isinstance(operation, ops.AlterColumnOp):
        return _altered_column(operation)
    difference = operation.to_diff_tuple()
    about = difference[0] if isinstance(difference, list) else difference
    return " ".join(str(part) for part in about if part is not None)


def _altered_embedding(operation: AlterEmbeddingOp) -> str:
    parts = [
        f"{key} is {value!r} in the models and {operation.existing.get(key)!r} in the database"
        for key, value in operation.changes.items()
    ]
    return f"{operation.name}: {'; '.join(parts)}"


def _altered_column(operation: ops.AlterColumnOp) -> str:
    parts = []
    if operation.modify_type is not None:
        parts.append(f"its type is {operation.modify_type} in the models and {operation.existing_type} in the database")
    if operation.modify_nullable is not None:
        parts.append("the models let it be NULL" if operation.modify_nullable else "the models want it NOT NULL")
    if operation.modify_server_default is not False:
        parts.append("its server default differs")
    return f"column {operation.table_name}.{operation.column_name}: {'; '.join(parts) or 'it differs'}"


def _changed_index(there: VectorIndex, wanted: VectorIndex) -> str:
    before, after = _about(there), _about(wanted)
    if before == after:
        return f"index {wanted.name}: there, and invalid, or over something else than in the models"
    return f"index {wanted.name}: {after} in the models and {before} in the database"


def _place(operation: CreateVectorIndexOp | DropVectorIndexOp) -> tuple[str | None, str]:
    return operation.index.schema, operation.index.name


def _about(index: VectorIndex) -> str:
    options = "".join(f", {key}={value}" for key, value in index.options.items())
    where = f", where {index.where}" if index.where else ""
    return f"({index.method}, {index.expression or index.column}, {index.opclass}{options}{where})"
