"""``embeddb advise``: which storage and index to declare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from embeddb.cli.output import UrlOption, connected, err, in_a_folder, out, progress_bar
from embeddb.cli.target import EmbeddingArgument, named

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from embeddb.insight.advise import Advice

#: Where Alembic looks for its own.
CONFIG: Final = Path("alembic.ini")


def command(
    name: EmbeddingArgument,
    url: UrlOption = None,
    recall: Annotated[float, typer.Option(help="The recall@10 that searches are to have.")] = 0.95,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many rows, by default those there are.", show_default=False)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="What the server may cache, as 16GB; by default effective_cache_size.", show_default=False),
    ] = None,
    sample: Annotated[int, typer.Option(min=50, help="Rows to read, and to build on with --try.")] = 5000,
    queries: Annotated[int, typer.Option(min=10, help="Rows to search for.")] = 100,
    trials: Annotated[
        bool, typer.Option("--try", help="Build and measure every candidate, on the sample in a temporary table.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="With --try, draw recall against time and size there, as PNG.",
            show_default=False,
            callback=in_a_folder,
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the change as an Alembic revision, or print it where none can be.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="With --apply, the project's alembic.ini, by default the one here.")
    ] = None,
) -> None:
    """Weigh rows, dimensions, memory, writes, filters and recall; propose storage, index and build settings.

    Reads a sample and builds three small indexes in a temporary table to calibrate by, or with --try all candidates.
    Where that is not allowed, it estimates by reading alone.
    """
    from embeddb.insight import trial
    from embeddb.insight.advise import advise

    if plot is not None and not trials:
        raise typer.BadParameter("it draws what --try measures: give both", param_hint="--plot")
    if config is not None and not config.is_file():
        raise typer.BadParameter(f"there is no file {config}", param_hint="--config")
    with connected(url) as connection:
        with progress_bar(name) as update:
            found = advise(
                connection,
                named(name),
                recall=recall,
                rows=rows,
                memory=memory,
                sample=sample,
                queries=queries,
                trials=trials,
                progress=update,
            )
        _show(found)
        if plot is not None:
            tried = [prediction.trial for prediction in found.predictions if prediction.trial is not None]
            trial.plot(tried, plot, f"{found.subject.name}: {tried[0].rows:,} of {found.rows:,} rows")
            err.print(str(plot), markup=False)
        if apply:
            _apply(connection, found, config or CONFIG)


def _show(found: Advice) -> None:
    from embeddb.insight.reasons import duration, size

    out.print(
        f"{found.subject.name}: {found.subject.storage}({found.subject.dim}), {found.subject.metric}, for "
        f"{found.rows:,} rows and a recall@10 of {found.target:g}",
        markup=False,
        soft_wrap=True,
    )
    tried = any(prediction.trial for prediction in found.predictions)
    table = Table("", "declaration", box=None)
    headings = ["column", "index", "build", "recall"]
    if tried:
        headings += ["tried: size", "build", "recall", "by", "ms"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    column = next((one.column for one in found.predictions if one.candidate.storage == found.subject.storage), 0.0)
    table.add_row("→" if found.chosen is None else "", "index=None", size(column), "", "", "1.000")
    for prediction in found.predictions:
        cells = [
            "→" if prediction.candidate == found.chosen else "",
            escape(prediction.candidate.declaration),
            size(prediction.column),
            size(prediction.index),
            duration(prediction.seconds),
            f"{prediction.recall:.3f}",
        ]
        if prediction.trial is not None:
            trial = prediction.trial
            cells += [size(trial.size), duration(trial.seconds), f"{trial.recall:.3f}"]
            cells += [f"{trial.fit.setting}={trial.fit.effort}", f"{trial.milliseconds:.2f}"]
        table.add_row(*cells)
    out.print(table)
    out.print(f"\nDeclare {found.declaration}" + ("" if found.changes else ", as it is"), markup=False, soft_wrap=True)
    for reason in found.reasons:
        out.print(f"- {reason}", markup=False, soft_wrap=not out.is_terminal)


def _apply(connection: Connection, found: Advice, config: Path) -> None:
    from embeddb.migrate.proposal import Proposal, body, write

    subject, chosen = found.subject, found.chosen
    done = f"{subject.name} is so already: there is nothing to write."
    if not found.changes and subject.spec is None:
        err.print(done, markup=False)  # whatever its index is called
        return
    proposal = Proposal(
        subject.table.name,
        subject.column.name,
        subject.dim,
        subject.metric,
        subject.storage if chosen is None else chosen.storage,
        None if chosen is None else chosen.index,
        subject.table.schema,
        found.building,
    )
    with connection.begin():
        made = body(connection, proposal)
        if made is None:
            err.print(done, markup=False)
            return
        if config.is_file():
            path = write(connection, made, config, f"{subject.name}: as advised")
            err.print(f"Wrote {path}.", markup=False, soft_wrap=True)
            err.print("Declare the same in the model before the next --autogenerate:")
        else:
            err.print(f"There is no {config} here: --config names one. The revision's body:", markup=False)
            source = f"{made.imports}\n\ndef upgrade():\n    {made.upgrades}\n\ndef downgrade():\n    {made.downgrades}"
            out.print(Syntax(source.strip(), "python", background_color="default") if out.is_terminal else source)
    typer.echo(f"embedding_column(..., {found.declaration})")
