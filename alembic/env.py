"""How Alembic runs the demo's migrations: the models, and the database of who calls, or of ``EMBEDDB_URL``."""

from __future__ import annotations

import os

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

import embeddb.migrate
from embeddb.demo.models import Base

embeddb.migrate.setup()  # for Alembic before 1.18; later ones find it themselves


def run_offline() -> None:
    """Write the script that ``--sql`` asks for."""
    context.configure(url="postgresql+psycopg://", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def engine() -> Engine:
    """The database: an engine that was handed over, ``sqlalchemy.url``, or the variable ``EMBEDDB_URL``."""
    given: Engine | None = context.config.attributes.get("engine")
    if given is not None:
        return given
    url = context.config.get_main_option("sqlalchemy.url") or os.environ.get("EMBEDDB_URL")
    if not url:
        raise CommandError("name the demo's database: EMBEDDB_URL=postgresql+psycopg://…")
    return create_engine(url, poolclass=NullPool)


def run_online() -> None:
    """Run in that database."""
    with engine().connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
