"""``embeddb backfill``: embed the rows that were there before their embedding was declared, or all of them anew."""

from __future__ import annotations

from typing import Annotated

import typer

from embeddb.cli.output import UrlOption, connected, database_url, err, out, progress_bar


def command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Embeddings as table.column; all by default.", show_default=False)
    ] = None,
    url: UrlOption = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Rows that have a vector too, as after a model changed.")
    ] = False,
    queue_only: Annotated[bool, typer.Option("--queue-only", help="Leave the work to running workers.")] = False,
    rebuild_index: Annotated[
        bool,
        typer.Option(
            "--rebuild-index",
            help="Drop the vector indexes and build them anew at the end: faster where most of the table is embedded."
            " Searches are exact, and slow, meanwhile.",
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Batches encoded at once.")] = 1,
) -> None:
    """Queue rows without a vector, behind fresh ones, and embed them here. Start it again to go on where it stopped."""
    from sqlalchemy import create_engine

    from embeddb.cli.worker import run_until_stopped
    from embeddb.queue.backfill import Backfill
    from embeddb.worker import Options, Worker
    from embeddb.worker.rebuild import drop_indexes, rebuild_indexes

    if queue_only and rebuild_index:
        raise typer.BadParameter("--rebuild-index needs the work to be done here: leave out --queue-only")
    engine = create_engine(database_url(url))
    with connected(url) as connection, connection.begin():
        backfill = Backfill.of(connection, names)
        queued = backfill.queue(connection, everything=everything)
        if rebuild_index:
            drop_indexes(connection, backfill.ids)
    err.print(f"{queued} rows queued.")
    if queue_only:
        return
    with connected(url) as connection, progress_bar("embedding") as update:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        total = backfill.pending(connection)

        def observe(*_: object) -> None:
            done = worker.totals.embedded + worker.totals.gone + worker.totals.failed
            update(done, max(total, done))

        worker = Worker(engine, names=backfill.names, options=Options(concurrency=concurrency), observer=observe)
        totals = run_until_stopped(worker, once=True)
        left = backfill.pending(connection)
    engine.dispose()
    out.print(f"{totals.embedded} rows embedded, {totals.failed} failed, {left} still queued.")
    if rebuild_index and not left:
        with connected(url) as connection, connection.begin():
            rebuild_indexes(connection, backfill.ids)
    if left:
        err.print("Start it again to go on." + (" The indexes are built then." if rebuild_index else ""))
        raise typer.Exit(1)
