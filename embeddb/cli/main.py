"""``embeddb``: the commands, and how their errors are shown."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

#: Modules with one command, by its name.
COMMANDS: Final = {
    "demo": "embeddb.cli.demo",
    "search": "embeddb.cli.search",
    "explain": "embeddb.cli.explain",
    "distill": "embeddb.cli.distill",
    "doctor": "embeddb.cli.doctor",
    "recall": "embeddb.cli.recall",
    "rescan": "embeddb.cli.rescan",
    "verify": "embeddb.cli.verify",
    "worker": "embeddb.cli.worker",
    "backfill": "embeddb.cli.backfill",
    "status": "embeddb.cli.status",
    "reembed": "embeddb.cli.reembed",
    "diagnose": "embeddb.cli.diagnose",
    "map": "embeddb.cli.map",
    "advise": "embeddb.cli.advise",
    "fit-pca": "embeddb.cli.fit_pca",
    "why": "embeddb.cli.why",
}
#: Modules with several, by their group's name.
GROUPS: Final[dict[str, str]] = {
    "schema": "embeddb.cli.schema",
    "sql": "embeddb.cli.sql",
    "failures": "embeddb.cli.failures",
    "train": "embeddb.cli.train",
    "index": "embeddb.cli.index",
}


def build() -> typer.Typer:
    """The application with every command. Importing the commands' modules imports neither SQLAlchemy nor torch."""
    import typer

    from embeddb import __version__

    app = typer.Typer(
        name="embeddb",
        help="Embeddings for SQLAlchemy models, inside Postgres.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def version(wanted: bool) -> None:
        if wanted:
            typer.echo(__version__)
            raise typer.Exit

    @app.callback()
    def options(
        _version: bool = typer.Option(
            False, "--version", callback=version, is_eager=True, help="Show the version and leave."
        ),
        debug: bool = typer.Option(False, "--debug", help="Show an error's whole traceback."),
    ) -> None:
        os.environ["EMBEDDB_DEBUG"] = "1" if debug else os.environ.get("EMBEDDB_DEBUG", "")

    for name, module in COMMANDS.items():
        app.command(name)(import_module(module).command)
    for name, module in GROUPS.items():
        app.add_typer(import_module(module).app, name=name)
    return app


def main() -> None:
    """Run a command. Errors of embeddb and of the database end with their message and status 1."""
    for package in ("typer", "rich"):
        if find_spec(package) is None:
            sys.exit("The embeddb command needs: pip install 'embeddb[cli]'")
    from embeddb.cli.output import show_error

    try:
        build()()
    except Exception as error:
        if os.environ.get("EMBEDDB_DEBUG"):
            raise
        show_error(error)
        sys.exit(1)
