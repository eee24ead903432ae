"""Columns that come and go: in which order, and which must wait for what embeddb has to do first."""

from __future__ import annotations

from collections.abc import Collection

from alembic.operations import MigrateOperation, ops
from sqlalchemy import Connection, inspect

from embeddb.migrate.script import log


def last_column_first(connection: Connection, table: ops.ModifyTableOps) -> list[MigrateOperation]:
    """The operations on a table, those that drop columns from the last to the first.

    Alembic has them in any order. In this one a downgrade adds them as they stood.
    """
    drops = [op for op in table.ops if isinstance(op, ops.DropColumnOp)]
    if len(drops) < 2:
        return list(table.ops)
    there = [column["name"] for column in inspect(connection).get_columns(table.table_name, schema=table.schema)]
    drops.sort(key=lambda op: there.index(op.column_name), reverse=True)
    ordered = iter(drops)
    return [next(ordered) if isinstance(op, ops.DropColumnOp) else op for op in table.ops]


def postpone(table: ops.ModifyTableOps, sources: Collection[str]) -> list[ops.ModifyTableOps]:
    """What drops these columns, taken out of ``table``: their triggers have to forget them first."""
    late = [op for op in table.ops if isinstance(op, ops.DropColumnOp) and op.column_name in sources]
    if not late:
        return []
    table.ops = [op for op in table.ops if op not in late]
    return [ops.ModifyTableOps(table.table_name, late, schema=table.schema)]


def hold_back(table: ops.ModifyTableOps, sources: Collection[str]) -> None:
    """Leave out what would drop these columns: an embedding whose encoder changes serves from them until contracted."""
    for op in postpone(table, sources):
        for drop in op.ops:
            assert isinstance(drop, ops.DropColumnOp)
            log.warning(
                "%s.%s stays until the change of encoder is contracted: it is embedded",
                table.table_name,
                drop.column_name,
            )
