"""How Alembic runs the demo's migrations: the models, and the database of ``EMBEDDB_URL`` or of who calls."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import embeddb.migrate
from embeddb.demo.models import Base

embeddb.migrate.setup()  # for Alembic before 1.18; later ones find it themselves


def run_offline() -> None:
    """Write the script that ``--sql`` asks for."""
    context.configure(url="postgresql+psycopg://", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Run in the database of the engine that was handed over, or of ``EMBEDDB_URL``."""
    given = context.config.attributes.get("engine")
    engine = given or create_engine(os.environ["EMBEDDB_URL"], poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
