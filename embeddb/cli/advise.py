"""``embeddb advise``: which storage and index to declare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from embeddb.cli.output import UrlOption, connected, err, out, progress_bar

if TYPE_CHECKING:
    from embeddb.insight.advise import Advice


def command(
    name: Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="The embedding, or any column of vectors.")],
    url: UrlOption = None,
    recall: Annotated[float, typer.Option(help="The recall@10 that searches are to have.")] = 0.95,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many rows, by default those there are.", show_default=False)
    ] = None,
    sample: Annotated[int, typer.Option(min=50, help="Rows to read, and to build on with --try.")] = 5000,
    queries: Annotated[int, typer.Option(min=10, help="Rows to search for.")] = 100,
    trials: Annotated[
        bool, typer.Option("--try", help="Build and measure every candidate, on the sample in a temporary table.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="With --try, draw recall against time and size there, as PNG.", show_default=False),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Print the change as the body of an Alembic revision.")
    ] = False,
) -> None:
    """Weigh rows, dimensions, memory, writes and recall, and propose storage, index and build settings.

    Reads a sample and builds two small indexes in a temporary table to calibrate by, or with --try all candidates.
    """
    from embeddb.insight import trial
    from embeddb.insight.advise import advise

    if plot is not None and not trials:
        raise typer.BadParameter("--plot draws what --try measures: give both")
    with connected(url) as connection:
        with progress_bar(name) as update:
            found = advise(
                connection,
                name,
                recall=recall,
                rows=rows,
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
            typer.echo(_revision(found))


def _show(found: Advice) -> None:
    out.print(f"{found.subject.name}, for {found.rows:,} rows and a recall@10 of {found.target:g}", markup=False)
    tried = any(prediction.trial for prediction in found.predictions)
    table = Table("", "declaration", "column MB", "index MB", "build s", "recall", box=None)
    if tried:
        for heading in ("tried: MB", "s", "recall", "effort", "ms a query"):
            table.add_column(heading)
    for prediction in found.predictions:
        cells = [
            "→" if prediction.candidate == found.chosen else "",
            escape(prediction.candidate.declaration),
            f"{prediction.column / 1e6:,.0f}",
            f"{prediction.index / 1e6:,.0f}",
            f"{prediction.seconds:,.1f}",
            f"{prediction.recall:.3f}",
        ]
        if prediction.trial is not None:
            trial = prediction.trial
            cells += [f"{trial.size / 1e6:,.1f}", f"{trial.seconds:.1f}", f"{trial.recall:.3f}"]
            cells += [f"{trial.fit.setting}={trial.fit.effort}", f"{trial.milliseconds:.2f}"]
        table.add_row(*cells)
    out.print(table)
    out.print(f"Declare {found.declaration}", markup=False)
    for reason in found.reasons:
        out.print(f"- {reason}", markup=False)


def _revision(found: Advice) -> str:
    return f"# Declare: {found.declaration}\n# and: alembic revision --autogenerate"
