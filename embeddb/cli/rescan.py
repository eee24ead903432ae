"""``embeddb rescan``: which files were changed under their names since they were embedded?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embeddb.cli.output import UrlOption, connected, database_url, err, progress_bar

if TYPE_CHECKING:
    from psycopg import Connection

    from embeddb.queue.target import Target


def command(
    name: Annotated[str, typer.Argument(help="The embedding as table.column; its source names files.")],
    url: UrlOption = None,
    after: Annotated[
        str | None, typer.Option(help="Go on after this key, which a scan that was stopped has named.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Files that are looked at at once.")] = 8,
) -> None:
    """Find files whose content is no longer the one that was embedded, and queue their rows.

    Prints each row's key with what became of it; ends with 1 if a file is missing or cannot be read. Only files whose
    size, times or ETag differ are read. A row that was embedded by a session's hook has no digest yet, and is queued
    once.
    """
    import psycopg
    from sqlalchemy import make_url

    from embeddb.catalog.install import require
    from embeddb.queue.jobs import prepare
    from embeddb.queue.target import targets

    with connected(url) as checked:
        require(checked)
    dsn = make_url(database_url(url)).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        prepare(connection)
        [target] = targets(connection, name)
        kinds = _rescan(connection, target, after, concurrency)
    err.print(
        f"{kinds['changed']} changed and queued, {kinds['unchanged']} unchanged, {kinds['pending']} queued before, "
        f"{kinds['missing']} missing or unreadable"
    )
    if kinds["missing"]:
        raise typer.Exit(1)


def _rescan(connection: Connection[Any], target: Target, after: str | None, concurrency: int) -> Counter[str]:
    from embeddb.queue.rescan import rescan

    [(rows,)] = connection.execute("SELECT (embeddb.count_rows(%s)).rows", [target.id])
    kinds: Counter[str] = Counter()
    with progress_bar(target.name) as update:
        scan = rescan(
            connection,
            target,
            after=after,
            concurrency=concurrency,
            progress=lambda done: update(done, max(done, rows or 0)),
        )
        try:
            for seen in scan:
                kinds[seen.kind] += 1
                after = seen.key
                if seen.kind in ("changed", "missing"):
                    typer.echo(f"{seen.key}: {seen.kind}: {seen.detail}")
        except BaseException:
            if after is not None:
                err.print(f"Stopped. Go on with: embeddb rescan {target.name} --after {after!r}", markup=False)
            raise
    return kinds
