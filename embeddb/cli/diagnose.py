"""``embeddb diagnose``: what an embedding's vectors are like, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from embeddb.cli.output import UrlOption, connected, err, in_a_folder, out
from embeddb.cli.target import EmbeddingArgument, named


def command(
    name: EmbeddingArgument,
    url: UrlOption = None,
    sample: Annotated[int, typer.Option(min=20, help="Rows to look at, drawn at random.")] = 5000,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours of each.")] = 10,
    duplicate: Annotated[
        float, typer.Option(min=0, max=1, help="A cosine that makes two rows nearly the same.")
    ] = 0.99,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the report there as Markdown, with its plots as PNG.",
            show_default=False,
            callback=in_a_folder,
        ),
    ] = None,
) -> None:
    """Measure norms, dimensions, hubs, duplicates and what smaller vectors would lose; say what follows."""
    from embeddb.insight.diagnose import diagnose

    with connected(url) as connection, err.status(name):
        found = diagnose(connection, named(name), sample=sample, k=k, duplicate=duplicate)
    if output is None:
        out.print(Markdown(found.markdown()))
        return
    picture = output.with_suffix(".png")
    found.plot(picture)
    output.write_text(found.markdown(picture.name), encoding="utf-8")
    err.print(f"{output} and {picture.name}", markup=False)
