"""Drift: where code, migrations and database do not agree, in words, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Connection, MetaData

from embeddb.catalog.blocks import blocks
from embeddb.catalog.indexes import read_index_states
from embeddb.catalog.install import Status, differing_functions, status
from embeddb.encoders import Encoder
from embeddb.errors import CatalogError, PgvectorMissing, PgvectorOutdated
from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.compare import FINGERPRINTS
from embeddb.migrate.embedding_operations import RefreshEmbeddingOp
from embeddb.migrate.environment import look, pending
from embeddb.migrate.index_operations import CreateVectorIndexOp, DropVectorIndexOp
from embeddb.migrate.weights import changed_weights
from embeddb.migrate.words import all_in_words
from embeddb.naming import embedding_name
from embeddb.orm import declared

Place = Literal["catalog", "migrations", "models", "database", "encoder"]

_SQL: Final = blocks("embeddb.migrate", "drift.sql")
_UPGRADE: Final = "alembic upgrade head"
_REVISE: Final = f"alembic revision --autogenerate, then {_UPGRADE}"
#: What comes before a catalog can be looked at.
_FIRST: Final = {PgvectorMissing: "CREATE EXTENSION vector", PgvectorOutdated: "ALTER EXTENSION vector UPDATE"}
_REINSTALL: Final = "embeddb schema uninstall, then embeddb schema install"
_BEHIND: Final = f"{_UPGRADE}, and look again"


class Drift(NamedTuple):
    """One difference: where it was found, what it is, and the command that mends it. ``sure``: False where it could
    not be looked at."""

    place: Place
    what: str
    remedy: str
    sure: bool = True


def find_drift(connection: Connection, metadata: MetaData | None = None, *, encoders: bool = True) -> list[Drift]:
    """What differs between a database and ``metadata``, where it is given; else what is amiss in the database itself.

    ``encoders``: load the encoders, to tell a model that has changed under its name. Reads, and writes nothing.
    """
    context = MigrationContext.configure(connection)
    return list(_find(context, metadata, None, encoders))


def find_drift_of_project(config: Config, metadata: MetaData | None = None, *, encoders: bool = True) -> list[Drift]:
    """The same for a project's Alembic environment: its migrations too, by its ``env.py``, whose models and database
    they are. ``metadata``: instead of the models of ``env.py``."""
    return look(config, lambda context: list(_find(context, metadata, config, encoders)))


def _find(
    context: MigrationContext, metadata: MetaData | None, config: Config | None, encoders: bool
) -> Iterator[Drift]:
    connection = context.connection
    assert connection is not None
    models: Any = context.opts.get("target_metadata") if metadata is None else metadata
    behind = False
    if config is not None:
        for drift in _migrations(config, context):
            behind = behind or drift.remedy == _UPGRADE
            yield drift
    try:
        found = status(connection)
    except CatalogError as error:
        remedy = next((command for kind, command in _FIRST.items() if isinstance(error, kind)), _REINSTALL)
        yield Drift("catalog", str(error), _BEHIND if behind and isinstance(error, PgvectorMissing) else remedy)
        return
    yield from _catalog(found, _BEHIND if behind else _REVISE if config is not None else None)
    installed = not found.missing and not found.outdated
    broken = _BrokenIndexes(connection) if installed else None
    if models is not None:
        remedy = "alembic revision --autogenerate, or embeddb.register for embeddings" if config is None else _REVISE
        yield from _models(context, models, _BEHIND if behind else remedy, broken)
    if broken is None:
        return
    yield from _database(connection)
    yield from broken.drifts()
    if encoders:
        yield from _encoders(connection, models)


def _migrations(config: Config, context: MigrationContext) -> Iterator[Drift]:
    waiting, unknown = pending(config, context)
    for revision in unknown:
        yield Drift(
            "migrations",
            f"the database is at revision {revision}, which this project does not have",
            "get the project's newest migrations, or see alembic stamp",
        )
    if not unknown:
        for script in waiting:
            yield Drift("migrations", f"revision {script.revision} ({script.doc}) has not been run", _UPGRADE)


def _catalog(found: Status, remedy: str | None) -> Iterator[Drift]:
    if found.missing:
        yield Drift("catalog", "there is no catalog in this database", remedy or "embeddb schema install")
    elif found.outdated:
        what = f"the catalog is at version {found.installed}, and this package has {found.available}"
        yield Drift("catalog", what, remedy or "embeddb schema upgrade")


class _BrokenIndexes:
    """Indexes that the database itself knows to be amiss: the models, which miss them too, have no part in it."""

    def __init__(self, connection: Connection) -> None:
        self.missing = [str(row.name) for row in _ask(connection, "unindexed")]
        self.invalid = [index for index in read_index_states(connection) if not index.valid and not index.held]

    def drifts(self) -> Iterator[Drift]:
        for name in self.missing:
            yield Drift("database", f"{name}: the index that it declares is not there", f"embeddb index build {name}")
        for index in self.invalid:
            yield Drift("database", f"index {index.place} is invalid: searches do not use it", "embeddb index repair")

    def concern(self, operation: Any) -> bool:
        """Is this operation what the models make of one of these?"""
        if not isinstance(operation, CreateVectorIndexOp | DropVectorIndexOp):
            return False
        wanted = operation.index
        name = embedding_name(wanted.table, wanted.column, wanted.schema)
        missing = isinstance(operation, CreateVectorIndexOp) and name in self.missing
        return missing or any((index.table, index.name) == (wanted.table, wanted.name) for index in self.invalid)


def _models(context: MigrationContext, models: Any, remedy: str, broken: _BrokenIndexes | None) -> Iterator[Drift]:
    context.opts[FINGERPRINTS] = False  # encoders are asked once, and not where they are to be left alone
    upgrade = produce_migrations(context, models).upgrade_ops
    assert upgrade is not None
    # The catalog, its triggers and what is amiss with indexes are looked at by themselves.
    elsewhere = InstallEmbeddbOp | UpgradeEmbeddbOp | RefreshEmbeddingOp
    operations = [
        op for op in upgrade.ops if not isinstance(op, elsewhere) and not (broken is not None and broken.concern(op))
    ]
    for words in all_in_words(operations):
        yield Drift("models", words, remedy)


def _database(connection: Connection) -> Iterator[Drift]:
    for function in differing_functions(connection):
        yield Drift("catalog", f"the function embeddb.{function} is not this package's", "embeddb schema upgrade")
    for orphan in _ask(connection, "orphans"):
        what = f"{orphan.name}: registered, and its table is gone"
        yield Drift("database", what, f"SELECT embeddb.unregister({orphan.id})")
    broken: set[str] = set()
    for name, problem in _ask(connection, "problems"):
        broken.add(name)
        what, _, call = problem.rpartition(": call ")
        yield Drift("database", f"{name}: {what}", _call(f"SELECT {call}({{name}})", name))
    for (name,) in _ask(connection, "outdated"):
        if name not in broken:
            broken.add(name)
            what = f"{name}: its triggers were made for other names of columns, or by another version"
            yield Drift("database", what, _call("SELECT embeddb.refresh({name})", name))
    for name, function in _ask(connection, "rewritten"):
        if name not in broken:
            remedy = (
                "BEGIN; SELECT embeddb.disarm({name}); SELECT embeddb.refresh({name});"
                " SELECT embeddb.make_functions(embeddb.find({name})); COMMIT"
            )
            yield Drift("database", f"{name}: somebody has rewritten its function {function}", _call(remedy, name))


def _ask(connection: Connection, block: str) -> Iterator[Any]:
    return iter(connection.exec_driver_sql(_SQL[block], execution_options={"no_parameters": True}).all())


def _call(statement: str, name: str) -> str:
    return sql.SQL(statement).format(name=name).as_string(None)


def _encoders(connection: Connection, models: Any) -> Iterator[Drift]:
    given: dict[str, Encoder] = {}
    for one in models if isinstance(models, list | tuple) else [models]:
        if one is not None:
            given |= {declaration.spec.name: declaration.encoder for declaration in declared(one)}
    for weights in changed_weights(connection, given):
        yield Drift("encoder", weights.what, weights.remedy, sure=weights.error is None)
