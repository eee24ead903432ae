"""``embeddb why``: which words of a row made it match a query."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from embeddb.cli.output import UrlOption, connected, out
from embeddb.cli.target import EmbeddingArgument, named

#: Cells of the longest bar.
BAR = 30


def command(
    name: EmbeddingArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was searched for.")],
    key: Annotated[list[str], typer.Option("--key", "-k", help="The row's primary key; once for each of its columns.")],
    url: UrlOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Words to show.")] = 20,
) -> None:
    """Leave each word out in turn: how much of the row's score goes with it?"""
    from embeddb.insight.match import explain_row

    with connected(url) as connection:
        match = explain_row(connection, named(name), query, tuple(key))
    longest = max((abs(word.weight) for word in match.words), default=0) or 1
    table = Table("word", "of the score", "", box=None)
    for word, weight in match.words[:limit]:
        bar = "█" * round(BAR * abs(weight) / longest)
        table.add_row(escape(word), f"{weight:+.4f}", f"[{'green' if weight > 0 else 'red'}]{bar}[/]")
    out.print(f"score {match.score:.4f}")
    out.print(table)
