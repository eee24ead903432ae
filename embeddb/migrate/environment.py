"""Alembic environments as other programs use them: the one of an ini file, or a folder, on an engine of theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import to_tuple
from sqlalchemy import Engine

T = TypeVar("T")


def configuration(place: Path) -> Config:
    """Alembic's configuration: of an ini file, or of a folder with ``env.py`` and ``versions``."""
    if place.is_file():
        return Config(str(place))
    config = Config()
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, folder: Path, revision: str = "head") -> None:
    """Run the migrations in ``folder``, whose ``env.py`` takes the engine from ``config.attributes["engine"]``."""
    config = configuration(folder)
    config.attributes["engine"] = engine
    command.upgrade(config, revision)


def look(config: Config, at: Callable[[MigrationContext], T]) -> T:
    """What ``at`` says of the database that ``env.py`` connects to, as ``env.py`` has configured the comparison."""
    found: list[T] = []

    def run(_revision: Any, context: MigrationContext) -> list[Any]:
        found.append(at(context))
        return []  # nothing to migrate

    scripts = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, scripts, fn=run, dont_mutate=True):  # or it makes its table of versions
        scripts.run_env()
    return found[0]


def pending(config: Config, context: MigrationContext) -> tuple[list[Script], list[str]]:
    """Revisions that the database has not had, oldest first; and the ones it is at that the project does not know."""
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    known = {script.revision: script for script in scripts}
    current = context.get_current_heads()
    unknown = sorted(set(current) - set(known))
    had: set[str] = set()
    ahead = list(current)
    while ahead:
        revision = ahead.pop()
        if revision in known and revision not in had:  # a dependency may be a label
            had.add(revision)
            ahead += [*to_tuple(known[revision].down_revision, ()), *to_tuple(known[revision].dependencies, ())]
    return [script for script in reversed(scripts) if script.revision not in had], unknown
