"""``embeddb failures``: rows that could not be embedded; look, try again, or let them be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embeddb.cli.output import UrlOption, connected, out

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from embeddb.queue import Target

app = typer.Typer(help="Rows that could not be embedded: list them, retry them, forget them.", no_args_is_help=True)

NameArgument = Annotated[
    str | None, typer.Argument(help="The embedding, as table.column; all by default.", show_default=False)
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", "-k", help='Only the row of this primary key: 17, or ["eu", 17]; repeatable.'),
]


@app.command("list")
def show(
    name: NameArgument = None,
    url: UrlOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show, newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, errors uncut.")] = False,
) -> None:
    """Show failed rows with the step that failed and the error."""
    from rich.table import Table
    from rich.text import Text
    from sqlalchemy import text

    from embeddb.catalog.install import require

    query = text(
        "SELECT embedding, key, step, attempts, failed_at, error FROM embeddb.failures"
        " WHERE cast(:name AS text) IS NULL OR embedding = embeddb.name(embeddb.find(:name))"
        " ORDER BY failed_at DESC LIMIT :limit"
    )
    with connected(url) as connection:
        require(connection)
        rows = connection.execute(query, {"name": name, "limit": limit}).mappings().all()
    if as_json:
        for row in rows:
            typer.echo(json.dumps({**row, "failed_at": row["failed_at"].isoformat()}))
        return
    table = Table("embedding", "key", "step", "attempts", "failed at", "error", box=None)
    for row in rows:
        when = row["failed_at"].strftime("%Y-%m-%d %H:%M:%S")
        cells = (row["embedding"], json.dumps(row["key"]), row["step"], str(row["attempts"]), when, row["error"])
        table.add_row(*map(Text, cells))
    out.print(table if rows else "No failures.")


@app.command()
def retry(name: NameArgument = None, key: KeyOption = None, url: UrlOption = None) -> None:
    """Queue failed rows again."""
    from embeddb.queue.jobs import retry as retry_rows

    out.print(f"{_each(url, name, key, retry_rows)} rows queued.")


@app.command()
def forget(name: NameArgument = None, key: KeyOption = None, url: UrlOption = None) -> None:
    """Drop records of failures without a retry. The rows stay as they are, and embeddb verify will report them."""
    from embeddb.queue.jobs import forget as forget_rows

    out.print(f"{_each(url, name, key, forget_rows)} failures forgotten.")


def _each(
    url: str | None,
    name: str | None,
    keys: list[str] | None,
    action: Callable[[Connection[Any], Target, list[str] | None], int],
) -> int:
    from embeddb.catalog.install import require
    from embeddb.queue import targets

    if keys is not None and name is None:
        raise typer.BadParameter("a key belongs to one embedding: name it too")
    with connected(url) as connection, connection.begin():
        require(connection)
        driver: Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        wanted = None if keys is None else [_as_key(key) for key in keys]
        done = sum(action(driver, target, wanted) for target in targets(driver, name))
    if keys is not None and not done:
        raise typer.BadParameter(f"{name} has no recorded failure of {', '.join(keys)}", param_hint="--key")
    return done


def _as_key(given: str) -> str:
    """A key as JSON; what is no JSON is taken for a text."""
    try:
        return json.dumps(json.loads(given))
    except json.JSONDecodeError:
        return json.dumps(given)
