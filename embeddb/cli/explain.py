"""``embeddb explain``: how a search would be served, in words, with its SQL and its plan."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.syntax import Syntax

from embeddb.cli.output import UrlOption, connected, out
from embeddb.cli.target import (
    EmbeddingArgument,
    EncoderOption,
    ExactOption,
    PlanOption,
    RecallOption,
    WhereOption,
    find_embedding,
    where_equal,
)


def command(
    target: EmbeddingArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What would be searched for.")],
    url: UrlOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows wanted.")] = 10,
    where: WhereOption = None,
    encoder: EncoderOption = None,
    exact: ExactOption = False,
    recall: RecallOption = None,
    sql: PlanOption = False,
) -> None:
    """Tell which index serves a search, with which settings, or why it is exact. Nothing is searched."""
    from embeddb.query.nearest import nearest
    from embeddb.query.plan import explain

    with connected(url) as connection:
        column = find_embedding(connection, target, encoder)
        statement = nearest(column, query, exact=exact, recall=recall).limit(limit)
        statement = where_equal(connection, statement, column.table, where)
        plan = explain(connection, statement.with_only_columns(*column.table.primary_key))
    out.print(plan.words, markup=False, soft_wrap=True)
    if sql:
        out.print(Syntax(plan.sql, "postgresql", background_color="default", word_wrap=True))
        out.print(str(plan), style="dim", markup=False)
