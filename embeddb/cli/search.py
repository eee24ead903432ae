"""``embeddb search``: one search, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.syntax import Syntax
from rich.table import Table

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

if TYPE_CHECKING:
    from sqlalchemy import Column

    from embeddb.sources.audio import Audio
    from embeddb.sources.images import Image


def command(
    target: EmbeddingArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.")],
    url: UrlOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows to show.")] = 10,
    where: WhereOption = None,
    encoder: EncoderOption = None,
    file: Annotated[bool, typer.Option("--file", help="QUERY is a file: a picture, or a sound.")] = False,
    exact: ExactOption = False,
    recall: RecallOption = None,
    sql: PlanOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """Search an embedding by text, or by a picture or a sound, nearest rows first."""
    from sqlalchemy import LargeBinary

    from embeddb.query.nearest import nearest
    from embeddb.query.plan import explain

    with connected(url) as connection:
        column = find_embedding(connection, target, encoder)
        asked = _sensed(column, query) if file else query
        statement = nearest(column, asked, score=True, exact=exact, recall=recall).limit(limit)
        statement = where_equal(connection, statement, column.table, where)
        # Vectors and bytes are of no use to a reader.
        shown = [
            c
            for c in statement.selected_columns
            if not hasattr(c.type, "storage") and not isinstance(c.type, LargeBinary)
        ]
        statement = statement.with_only_columns(*shown)
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        plan = explain(connection, statement) if sql else None
    if as_json:
        for row in rows:
            out.print(json.dumps(row, default=str, ensure_ascii=False), soft_wrap=True, markup=False)
        return
    if plan is not None:
        out.print(Syntax(plan.sql, "postgresql", background_color="default", word_wrap=True))
        out.print(str(plan), style="dim", markup=False)
    out.print(_table(rows) if rows else "No rows.")


def _sensed(column: Column[Any], query: str) -> Image | Audio:
    """The user's own file, as what the embedding's encoder takes."""
    from embeddb.orm.settings import settings_of
    from embeddb.sources.audio import Audio
    from embeddb.sources.images import Image

    path = Path(query)
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {query}")
    settings = settings_of(column.type)
    return Audio(path) if settings is not None and settings.encoder.modality == "audio" else Image(path)


def _table(rows: list[dict[str, Any]]) -> Table:
    names = ["score", *(name for name in rows[0] if name != "score")]
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(f"{row['score']:.3f}", *(_shown(row[name]) for name in names[1:]))
    return table


def _shown(value: Any) -> str:
    text = "" if value is None else str(value).replace("[", r"\[")
    return text if len(text) <= 120 else text[:119] + "…"
