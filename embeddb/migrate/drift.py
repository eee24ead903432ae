"""Drift: where code, migrations and database do not agree, in words, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text

from embeddb.catalog.indexes import read_index_states
from embeddb.catalog.install import Status, status
from embeddb.encoders import Encoder
from embeddb.errors import CatalogError
from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.embedding_operations import RefreshEmbeddingOp
from embeddb.migrate.environment import look, pending
from embeddb.migrate.weights import changed_weights
from embeddb.migrate.words import all_in_words
from embeddb.orm import declared

Place = Literal["catalog", "migrations", "models", "database", "encoder"]

_PROBLEMS: Final = text(
    "SELECT v.name, p FROM embeddb.embeddings v, LATERAL embeddb.problems(v.id) AS p ORDER BY v.name, p"
)
_UPGRADE: Final = "alembic upgrade head"


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
        yield Drift("catalog", f"{error}", "CREATE EXTENSION vector, or ALTER EXTENSION vector UPDATE")
        return
    yield from _catalog(found, config)
    if models is not None:
        yield from _models(context, models, config, behind)
    if found.missing or found.outdated:
        return
    yield from _database(connection)
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


def _catalog(found: Status, config: Config | None) -> Iterator[Drift]:
    if found.missing:
        remedy = "embeddb schema install" if config is None else "op.install_embeddb() in a revision"
        yield Drift("catalog", "there is no catalog in this database", remedy)
    elif found.outdated:
        what = f"the catalog is at version {found.installed}, and this package has {found.available}"
        yield Drift(
            "catalog", what, "embeddb schema upgrade" if config is None else "op.upgrade_embeddb() in a revision"
        )


def _models(context: MigrationContext, models: Any, config: Config | None, behind: bool) -> Iterator[Drift]:
    upgrade = produce_migrations(context, models).upgrade_ops
    assert upgrade is not None
    # The catalog and its triggers are looked at by themselves.
    elsewhere = InstallEmbeddbOp | UpgradeEmbeddbOp | RefreshEmbeddingOp
    operations = [op for op in upgrade.ops if not isinstance(op, elsewhere)]
    if behind:
        remedy = f"{_UPGRADE}, and look again"
    elif config is None:
        remedy = "alembic revision --autogenerate, or embeddb.register for embeddings"
    else:
        remedy = f"alembic revision --autogenerate, then {_UPGRADE}"
    for words in all_in_words(operations):
        yield Drift("models", words, remedy)


def _database(connection: Connection) -> Iterator[Drift]:
    for name, problem in connection.execute(_PROBLEMS).all():
        what, _, call = problem.rpartition(": call ")
        quoted = name.replace("'", "''")
        yield Drift("database", f"{name}: {what}", f"SELECT {call}('{quoted}')")
    for index in read_index_states(connection):
        if not index.valid and not index.held:
            yield Drift("database", f"index {index.place} is invalid: searches do not use it", "embeddb index repair")


def _encoders(connection: Connection, models: Any) -> Iterator[Drift]:
    given: dict[str, Encoder] = {}
    for one in models if isinstance(models, list | tuple) else [models]:
        if one is not None:
            given |= {declaration.spec.name: declaration.encoder for declaration in declared(one)}
    for weights in changed_weights(connection, given):
        remedy = f"embeddb backfill {weights.name} --everything, or the model that it was"
        yield Drift("encoder", str(weights), remedy, sure=weights.error is None)
