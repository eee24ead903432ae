"""``embeddb index``: the vector indexes of a database, how far builds are, and mending what a failed one has left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from embeddb.cli.output import UrlOption, database_url, err, out

if TYPE_CHECKING:
    from embeddb.catalog.indexes import Build
    from embeddb.worker.index_builds import Observer

app = typer.Typer(help="Vector indexes: what there is, how far builds are, and building them.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(help="The embedding, as table.column.", show_default=False)]
MemoryOption = Annotated[
    str | None, typer.Option(help="maintenance_work_mem, as 2GB: an HNSW graph that fits into it builds much faster.")
]
WorkersOption = Annotated[int | None, typer.Option(min=0, help="max_parallel_maintenance_workers.")]


@app.command("list")
def show(name: Name = None, url: UrlOption = None) -> None:
    """Show vector indexes, or those of one embedding. Ends with 1 where one is invalid, or missing."""
    from rich.table import Table
    from sqlalchemy import create_engine

    from embeddb.catalog.indexes import read_builds
    from embeddb.worker.index_builds import declared_indexes, index_states

    engine = create_engine(database_url(url))
    try:
        with engine.connect() as connection:
            declared = declared_indexes(connection, name)
            found = index_states(connection, name)
            driven: Any = connection.connection.driver_connection
            building = {build.place: build for build in read_builds(driven)}
    finally:
        engine.dispose()
    table = Table("index", "table", "on", "method", "operator class", "options", "size", "state", box=None)
    for index in found:
        build = building.get(index.place)
        invalid = "leftover" if index.leftover else "being built" if index.held else "invalid"
        state = str(build) if build is not None else "valid" if index.valid else invalid
        options = ", ".join(index.options)
        what = (index.table, index.expression, index.method, index.opclass, options, decimal(index.size), state)
        table.add_row(index.name, *what)
    missing = [each for each in declared if not each.found]
    for each in missing:
        assert each.spec.index is not None
        options = ", ".join(f"{key}={value}" for key, value in each.spec.index.options.items())
        table.add_row(each.name, each.spec.table, each.spec.column, each.spec.index.method, "", options, "", "missing")
    out.print(table)
    if missing or not all(index.valid for index in found):
        raise typer.Exit(1)


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="The embedding, as table.column.")],
    url: UrlOption = None,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
) -> None:
    """Build the index that an embedding declares, where it is missing or invalid. Writers and searches go on.

    Interrupt it when you like: what was built of it is dropped.
    """
    from sqlalchemy import create_engine

    from embeddb.worker.index_builds import build as build_index

    engine = create_engine(database_url(url))
    try:
        with build_bar() as observer:
            made = build_index(engine, name, memory=memory, workers=workers, observer=observer, notice=_notice)
    except KeyboardInterrupt:
        err.print("Interrupted.")
        raise typer.Exit(130) from None
    finally:
        engine.dispose()
    out.print(f"{name}: its index is there already." if made is None else f"The index {made} is built.", markup=False)


@app.command()
def repair(
    name: Name = None,
    url: UrlOption = None,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
) -> None:
    """Mend the vector indexes of the database, or of one embedding.

    What an interrupted REINDEX or DROP CONCURRENTLY has left is dropped, what is invalid is built again as it was, and
    declared ones that are missing are built, all concurrently. Ends with 1 where somebody else works on a table.
    """
    from sqlalchemy import create_engine

    from embeddb.worker.index_builds import repair as repair_indexes

    done: list[str] = []
    engine = create_engine(database_url(url))
    try:
        with build_bar() as observer:
            about: dict[str, Any] = {"memory": memory, "workers": workers, "observer": observer, "notice": _notice}
            left = repair_indexes(engine, name, **about, say=done.append)
    except KeyboardInterrupt:
        err.print("Interrupted; run it again to go on.")
        raise typer.Exit(130) from None
    finally:
        engine.dispose()
        for line in done:
            out.print(line, markup=False)
    if not done:
        out.print("There is nothing to mend.")
    if left:
        raise typer.Exit(1)


@contextmanager
def build_bar() -> Iterator[Observer]:
    """A bar on the error stream; yields what is told how far a build is."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False, rows="")

        def observe(build: Build) -> None:
            rows = f"{build.rows} rows" if build.rows else ""
            about: dict[str, Any] = {"description": build.phase, "rows": rows, "visible": True}
            progress.update(task, completed=build.done, total=build.total or None, **about)

        yield observe


def _notice(said: str) -> None:
    err.print(said, markup=False)
