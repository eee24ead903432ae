"""``embeddb recall``: what share of the nearest rows an index finds, and what it takes to find as many as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from embeddb.cli.output import UrlOption, connected, err, out, progress_bar
from embeddb.cli.target import EncoderOption, find_embedding

if TYPE_CHECKING:
    from embeddb.insight.recall import Fit


def command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE.COLUMN",
            help="Embeddings, registered or not; or package.module:Model.attribute. By default all that were not "
            "measured, or have doubled since.",
            show_default=False,
        ),
    ] = None,
    url: UrlOption = None,
    target: Annotated[float, typer.Option(help="The recall that searches get unless they ask for another.")] = 0.95,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Rows that a search asks for.")] = 10,
    queries: Annotated[int, typer.Option(min=10, help="Rows to search for, drawn at random.")] = 200,
    encoder: EncoderOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure only: searches go on as they are.")] = False,
) -> None:
    """Measure recall against exact search, fit the index's settings to it, and let searches use them.

    Reads every row once for each query. Needs the table's owner, unless --dry-run.
    """
    from embeddb.insight.recall import keep, measure, unmeasured

    with connected(url) as connection:
        names = targets or unmeasured(connection)
        if not names:
            err.print("Nothing to measure: no registered embedding has an index that was not, or has doubled since.")
        for name in names:
            column = find_embedding(connection, name, encoder)
            connection.commit()
            with progress_bar(name) as update:
                fit = measure(connection, column, target=target, k=k, queries=queries, progress=update)
            if not dry_run:
                with connection.begin():
                    keep(connection, fit)
            _show(fit)


def _show(fit: Fit) -> None:
    table = Table("recall", fit.setting, f"measured recall@{fit.k}", "ms, median", box=None)
    for level, effort in fit.efforts.items():
        mark = " (default)" if level == fit.target else ""
        table.add_row(f"{level:g}{mark}", str(effort), f"{fit.measured[effort]:.4f}", f"{fit.milliseconds[effort]:.2f}")
    out.print(f"{fit.name}: {fit.rows:,} rows, {fit.queries} queries")
    out.print(table)
    for level, effort in fit.efforts.items():
        if fit.measured[effort] < level:
            err.print(
                f"{fit.name} does not reach a recall of {level:g} by {fit.setting}: build the index with more, "
                "or search with exact=True",
            )
