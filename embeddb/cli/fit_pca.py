"""``embeddb fit-pca``: fewer dimensions, fitted to the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from embeddb.cli.output import UrlOption, connected, err, progress_bar
from embeddb.cli.target import EmbeddingArgument, named


def command(
    name: EmbeddingArgument,
    dim: Annotated[int, typer.Option(min=1, help="Principal components to keep; all of them only turn the vectors.")],
    url: UrlOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to write, by default pca-TABLE.COLUMN-DIM.", show_default=False),
    ] = None,
) -> None:
    """Fit principal components to an embedding's rows; print the configuration of the encoder that uses them.

    Queries follow: what is declared with it is reduced on both sides.
    """
    from embeddb.insight.pca import fit_pca

    folder = output or Path(f"pca-{name.rpartition(':')[2]}-{dim}")
    with connected(url) as connection, progress_bar(name) as update:
        fitted = fit_pca(connection, named(name), dim, folder, progress=update)
    err.print(f"{fitted.folder}: {dim} components of {fitted.rows:,} rows keep {fitted.kept:.1%} of the squares")
    if fitted.encoder is None:
        err.print("Declare Reduced(encoder, folder) with the encoder that embedded the rows.")
        return
    err.print(
        f"Declare it as encoder={fitted.encoder!r}; embeddb reembed {fitted.name} --to takes what follows.",
        markup=False,
    )
    typer.echo(json.dumps(dict(fitted.encoder.config)))
