"""What the commands share: the console, options, progress bars, tables and errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

#: Columns of a table in a file or a pipe.
WIDE: Final = 200

# What goes to a file or a pipe is not cut to a terminal's width.
out: Final = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err: Final = Console(stderr=True, highlight=False)

UrlOption = Annotated[
    str | None,
    typer.Option("--url", "-u", help="The database, by default $EMBEDDB_URL or $DATABASE_URL.", show_default=False),
]


def in_a_folder(path: Path | None) -> Path | None:
    """For an option that names a file to write: refused before the work is done, not after it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}")
    return path


def database_url(given: str | None) -> str:
    """The URL to use, for psycopg 3 where it names no driver; an error says how to give one."""
    url = given or os.environ.get("EMBEDDB_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise typer.BadParameter("name the database: --url postgresql://… or the variable EMBEDDB_URL")
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        # Not repeated: what was mistaken for a URL may be a password.
        raise typer.BadParameter("the database's URL has the form postgresql://user@host/name")
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


@contextmanager
def engine_of(url: str | None) -> Iterator[Engine]:
    """An engine for the database that is meant, disposed of at the end."""
    from sqlalchemy import create_engine

    # A connection that stood idle while a model was trained may be gone.
    engine = create_engine(database_url(url), pool_pre_ping=True)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def connected(url: str | None) -> Iterator[Connection]:
    """A connection to the database that is meant, closed with its engine at the end."""
    with engine_of(url) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the error stream; yields ``update(done, total)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        # What ends before anything is counted, as an error does, leaves no bar behind.
        task = progress.add_task(title, total=None, visible=False)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield update


def show_error(error: Exception) -> None:
    """An error as a panel, without passwords; of the database's errors what it said, not our SQL and its values."""
    shown = getattr(error, "orig", None) or error
    message = without_password(str(shown)) or type(shown).__name__
    err.print(Panel(escape(message), title=type(shown).__name__, title_align="left", border_style="red"))


def without_password(text: str) -> str:
    """``text`` with the password of every URL in it blotted out."""
    return re.sub(r"(\w+://[^\s:/@]*):[^\s@/]*@", r"\1:***@", text)
