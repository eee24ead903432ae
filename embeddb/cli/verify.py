"""``embeddb verify``: is every row's vector right, or something pending for it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embeddb.cli.output import UrlOption, connected, database_url, err, progress_bar

if TYPE_CHECKING:
    from psycopg import Connection

    from embeddb.queue.target import Target


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Embeddings and histories as table.column; all by default.", show_default=False),
    ] = None,
    url: UrlOption = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many rows at random, instead of all.", show_default=False)
    ] = None,
    encode: Annotated[
        bool, typer.Option(help="Embed the sources again, to find vectors of other sources or another encoder.")
    ] = True,
    tolerance: Annotated[float, typer.Option(min=0, help="Relative distance that passes for the same vector.")] = 0.01,
) -> None:
    """Check the promise on a live database. Prints each violation with its row's key; ends with 1 if there is one.

    Others may write meanwhile. A vector that a writer brought, and that is not the encoder's, is a violation too.
    Users' vectors that are pooled from their histories are pooled again, in the database.
    """
    import psycopg
    from sqlalchemy import make_url

    from embeddb.catalog.install import require
    from embeddb.queue.jobs import prepare
    from embeddb.queue.target import targets

    with connected(url) as checked:
        require(checked)
    dsn = make_url(database_url(url)).set(drivername="postgresql").render_as_string(hide_password=False)
    found = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        prepare(connection)
        histories = {name for (name,) in connection.execute("SELECT history FROM embeddb.histories")}
        for target in [t for name in names or (None,) if name not in histories for t in targets(connection, name)]:
            found += _verify(connection, target, sample, encode, tolerance)
        for history in sorted(histories.intersection(names or histories)):
            found += _verify_history(connection, history)
    err.print(f"{found} violation{'s' * (found > 1)}" if found else "The promise holds.")
    if found:
        raise typer.Exit(1)


def _verify(connection: Connection[Any], target: Target, sample: int | None, encode: bool, tolerance: float) -> int:
    from embeddb.encoders import from_config
    from embeddb.queue.verify import verify

    encoder = from_config(target.spec.encoder) if encode else None
    [(rows,)] = connection.execute("SELECT (embeddb.count_rows(%s)).rows", [target.id])
    total = min(sample or rows or 0, rows or 0)
    found = 0
    with progress_bar(target.name) as update:
        checks = verify(
            connection,
            target,
            encoder,
            sample=sample,
            tolerance=tolerance,
            progress=lambda done: update(done, max(done, total)),
        )
        for violation in checks:
            found += 1
            typer.echo(str(violation))
    return found


def _verify_history(connection: Connection[Any], history: str) -> int:
    violations = connection.execute("SELECT key, problem FROM embeddb.verify_histories(%s)", [history]).fetchall()
    for key, problem in violations:
        typer.echo(f"{history}{'' if key is None else f' of {key}'}: {problem}")
    return len(violations)
