"""``embeddb schema check``: whether code, migrations and database agree, and what mends it where they do not."""

from __future__ import annotations

import json
import logging
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embeddb.cli.output import UrlOption, connected, database_url, err, out
from embeddb.cli.target import import_path

if TYPE_CHECKING:
    from embeddb.migrate.drift import Drift

_INI = Path("alembic.ini")


def check(
    url: UrlOption = None,
    models: Annotated[
        str | None, typer.Option(help="package.module:Base, by default the models of env.py.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The project's alembic.ini, by default the one in this folder.", show_default=False),
    ] = None,
    encoders: Annotated[bool, typer.Option(help="Load the encoders, to tell models that have changed.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say where code, migrations and database differ, in words, with the command that mends it. Ends with 1 then.

    With an alembic.ini the migrations are looked at, and models and database are those of its env.py; --url takes the
    place of sqlalchemy.url. Without one: the database, and --models.
    """
    drifts = _find(url, models, config, encoders)
    if as_json:
        typer.echo(json.dumps([drift._asdict() for drift in drifts], indent=2))
    elif drifts:
        for remedy, mended in groupby(drifts, key=lambda drift: drift.remedy):
            for drift in mended:
                out.print(f"{drift.place}: {drift.what}", markup=False, soft_wrap=True)
            out.print(f"    → {remedy}", markup=False, style="green", soft_wrap=True)
    else:
        out.print(_agreement(models, config))
    if any(drift.sure for drift in drifts):
        raise typer.Exit(1)


def _find(url: str | None, models: str | None, config: Path | None, encoders: bool) -> list[Drift]:
    from embeddb.migrate.drift import find_drift, find_drift_of_project
    from embeddb.migrate.environment import configuration

    metadata: Any = None if models is None else _metadata(models)
    place = _project(config)
    if place is not None:
        if not place.exists():
            raise typer.BadParameter(f"there is no {place}", param_hint="--config")
        found = configuration(place)
        if url is not None:
            found.set_main_option("sqlalchemy.url", database_url(url).replace("%", "%%"))
        err.print(f"Looking at the models, migrations and database of {place}", markup=False)
        logging.disable(logging.INFO)  # what Alembic notes of its comparison is told here, and in words
        try:
            return find_drift_of_project(found, metadata, encoders=encoders)
        finally:
            logging.disable(logging.NOTSET)
    with connected(url) as connection:
        return find_drift(connection, metadata, encoders=encoders)


def _project(config: Path | None) -> Path | None:
    return config or (_INI if _INI.exists() else None)


def _agreement(models: str | None, config: Path | None) -> str:
    """That nothing differs among what was looked at."""
    if _project(config) is not None:
        return "Code, migrations and database agree."
    if models is not None:
        return "Code and database agree. There is no alembic.ini here: --config names one, for migrations."
    return "The database is as it was registered. Of code and migrations: --models and --config."


def _metadata(path: str) -> Any:
    found = import_path(path)
    return getattr(found, "metadata", found)
