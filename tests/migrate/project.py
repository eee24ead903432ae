"""A project's Alembic environment in a folder of its own, driven through Alembic's API."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Engine, MetaData

from embeddb.local import LocalPostgres

ENV = """
from contextlib import nullcontext

from alembic import context
import embeddb.migrate

embeddb.migrate.setup()
attributes = context.config.attributes
options = {"target_metadata": attributes["metadata"], "include_schemas": attributes.get("include_schemas", False)}
options["include_object"] = attributes.get("include_object")
if context.is_offline_mode():
    context.configure(url="postgresql+psycopg://", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    given = attributes.get("connection")
    with nullcontext(given) if given is not None else attributes["engine"].connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""


class Project:
    """An application's folder of migrations, and its database."""

    def __init__(self, folder: Path, engine: Engine, metadata: MetaData, **attributes: Any) -> None:
        self.folder, self.engine = folder, engine
        self.output = io.StringIO()
        self.config = Config(str(folder / "alembic.ini"), output_buffer=self.output, stdout=io.StringIO())
        if not (folder / "migrations").exists():
            command.init(self.config, str(folder / "migrations"))
        (folder / "migrations" / "env.py").write_text(ENV)
        self.config.attributes.update(engine=engine, metadata=metadata, **attributes)

    @property
    def metadata(self) -> MetaData:
        found: MetaData = self.config.attributes["metadata"]
        return found

    @metadata.setter
    def metadata(self, metadata: MetaData) -> None:
        self.config.attributes["metadata"] = metadata

    def revise(self, message: str) -> str:
        """Autogenerate a revision; its text."""
        script = command.revision(self.config, message, autogenerate=True)
        assert script is not None
        assert not isinstance(script, list)
        return Path(script.path).read_text()

    def upgrade(self, revision: str = "head", *, options: dict[str, str] | None = None) -> None:
        """As ``alembic upgrade``; ``options`` are those of ``-x``."""
        with self._arguments(options):
            command.upgrade(self.config, revision)

    def downgrade(self, revision: str = "-1", *, options: dict[str, str] | None = None) -> None:
        """As ``alembic downgrade``."""
        with self._arguments(options):
            command.downgrade(self.config, revision)

    def script(self, span: str = "head", *, down: bool = False) -> str:
        """What ``--sql`` prints."""
        self.output.seek(0)
        self.output.truncate()
        (command.downgrade if down else command.upgrade)(self.config, span, sql=True)
        return self.output.getvalue()

    def scripts(self) -> list[Script]:
        """The revisions, first to last."""
        return list(ScriptDirectory.from_config(self.config).walk_revisions())[::-1]

    def check(self) -> None:
        """As ``alembic check``: raises where something differs."""
        command.check(self.config)

    def _arguments(self, options: dict[str, str] | None) -> _Arguments:
        return _Arguments(self.config, options or {})


class _Arguments:
    """``-x key=value`` while a command runs."""

    def __init__(self, config: Config, options: dict[str, str]) -> None:
        self.config, self.options = config, options

    def __enter__(self) -> None:
        from argparse import Namespace

        self.config.cmd_opts = Namespace(x=[f"{key}={value}" for key, value in self.options.items()])

    def __exit__(self, *error: object) -> None:
        self.config.cmd_opts = None


def differences(engine: Engine, metadata: MetaData, **options: Any) -> list[Any]:
    """What autogenerate would do, and a tuple for each."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def address(url: URL) -> str:
    """For libpq's programs."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def dump(server: LocalPostgres, url: URL, *options: str) -> str:
    """What pg_dump writes, without the token that differs from run to run."""
    command = [str(server.programs / "pg_dump"), *options, address(url)]
    ran = subprocess.run(command, capture_output=True, check=True, text=True)
    return re.sub(r"\\(un)?restrict .*", "", ran.stdout)


def schema_of(server: LocalPostgres, url: URL) -> str:
    """``pg_dump --schema-only``. A column that was dropped and added again has another number, by which triggers ask
    whether it is still called as it was; the schema is the same."""
    return re.sub(r"TG_RELID, \d+", "TG_RELID, n", dump(server, url, "--schema-only"))


def psql(server: LocalPostgres, url: URL, script: str) -> None:
    """Run a script, stopping at the first error."""
    command = [str(server.programs / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address(url)]
    ran = subprocess.run(command, input=script, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
