"""``embeddb map``: the rows of an embedding as points of a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embeddb.cli.output import UrlOption, connected, err, in_a_folder
from embeddb.cli.target import EmbeddingArgument, named


def command(
    name: EmbeddingArgument,
    url: UrlOption = None,
    color: Annotated[
        str | None, typer.Option(help="A column of the table, that groups the rows.", show_default=False)
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="A column to show, by default the sources; may be repeated.", show_default=False),
    ] = None,
    sample: Annotated[int, typer.Option(min=3, max=20_000, help="Rows to draw, at random.")] = 20_000,
    output: Annotated[
        Path, typer.Option("--out", "-o", help="Write OUT.png and OUT.html.", callback=in_a_folder)
    ] = Path("map"),
) -> None:
    """Draw a map by PCA, and by UMAP where umap-learn is installed: a picture, and a page to move about in.

    The page holds the rows' texts, and needs no network.
    """
    from embeddb.insight.map import map_of

    with connected(url) as connection, err.status(name):
        found = map_of(connection, named(name), color=color, texts=texts or (), sample=sample)
    picture, page = (output.with_name(output.name + suffix) for suffix in (".png", ".html"))
    found.png(picture)
    found.html(page)
    err.print(f"{picture} and {page}: {len(found.texts):,} of {found.rows:,} rows, by {', '.join(found.views)}")
