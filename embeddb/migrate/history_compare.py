"""Histories: those of the models beside those that are registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection, text

from embeddb.catalog.blocks import blocks
from embeddb.migrate.found import Key
from embeddb.migrate.history_operations import CreateHistoryOp, DropHistoryOp
from embeddb.orm.history import History
from embeddb.orm.history_spec import HistorySpec

_SQL = blocks("embeddb.migrate", "found.sql")


def compare_histories(
    connection: Connection, declared: dict[Key, History], concerned: Callable[[Key], bool]
) -> tuple[list[DropHistoryOp], list[CreateHistoryOp]]:
    """What to drop and what to create. ``concerned``: is this column, which the models do not declare, theirs?"""
    default = connection.dialect.default_schema_name
    found = _registered(connection, default)
    wanted = {key: _named(history.spec, default) for key, history in declared.items()}
    changed = {key for key in found.keys() & wanted.keys() if found[key] != wanted[key]}
    gone = {key for key in found.keys() - wanted.keys() if concerned(key)}
    drops = [
        DropHistoryOp(key.table, key.column, key.schema, existing=found[key])
        for key in sorted(changed | gone, key=lambda key: key.place)
    ]
    new = (wanted.keys() - found.keys()) | changed
    return drops, [CreateHistoryOp(wanted[key]) for key in sorted(new, key=lambda key: key.place)]


def _registered(connection: Connection, default: str | None) -> dict[Key, HistorySpec]:
    if connection.scalar(text("SELECT pg_catalog.to_regclass('embeddb.history')")) is None:
        return {}
    found = (_named(HistorySpec.from_dict(spec), default) for spec in connection.scalars(text(_SQL["histories"])))
    return {Key(spec.users_schema, spec.users, spec.column): spec for spec in found}


def _named(spec: HistorySpec, default: str | None) -> HistorySpec:
    """As Alembic has it: None for the default schema, which a model may name."""
    users, events, items = (None if schema == default else schema for schema, _ in spec.tables)
    return replace(spec, users_schema=users, events_schema=events, items_schema=items)
