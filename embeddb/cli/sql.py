"""``embeddb sql``: encoders inside the database, for ``embeddb.embed``."""

from __future__ import annotations

from typing import Annotated

import typer

from embeddb.cli.output import UrlOption, connected, err, out

app = typer.Typer(help="Encoders inside the database, for embeddb.embed.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="The embedding.")]


@app.command()
def install(
    name: Name,
    url: UrlOption = None,
    half: Annotated[
        bool, typer.Option("--halfvec", help="Weights in half precision: half the size, cosine above 0.9999.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Distil the encoder as well, as embeddb distill does.")] = False,
    called: Annotated[
        str | None, typer.Option("--name", help="What to call it, by default as the model.", show_default=False)
    ] = None,
) -> None:
    """Put an embedding's encoder into the database: a transformer's weights, or word vectors.

    Every embedding with the same encoder has it then. An encoder that has no SQL can still be distilled.
    """
    from embeddb.insql import Fast, has_sql, install_encoder

    with connected(url) as connection:
        made = None
        # One that cannot be installed can still be distilled.
        if has_sql(connection, name) or not fast:
            with err.status("Installing …"):
                made = install_encoder(connection, name, half=half, name=called)
            kind = f"{made.tokens:,} words" if isinstance(made, Fast) else "a transformer"
            out.print(f"{made.name}: {kind}, {made.size / 1e6:.1f} MB", markup=False)
        if fast and not isinstance(made, Fast):
            from embeddb.cli.distill import tell
            from embeddb.encoders import from_config
            from embeddb.insql.distill import subject
            from embeddb.train.distil import distil

            with err.status("Distilling …"):
                found = distil(connection, name, from_config(subject(connection, name).config))
            tell(found)
        connection.commit()


@app.command("list")
def list_(url: UrlOption = None) -> None:
    """The encoders inside this database."""
    from rich.table import Table

    from embeddb.catalog.install import require
    from embeddb.insql import installed, installed_fast

    table = Table("name", "kind", "MB", "precision", "for", "agreement: cosine, nearest")
    with connected(url) as connection:
        require(connection)
        for one in installed(connection):
            table.add_row(
                one.name,
                "transformer",
                f"{one.size / 1e6:.1f}",
                "half" if one.half else "single",
                "all",
                "above 0.9999" if one.half else "exact",
            )
        for fast in installed_fast(connection):
            near = "exact" if fast.agreement is None else "{cosine:.3f}, {nearest:.3f}".format(**fast.agreement)
            kind = "word vectors" if fast.embedding is None else f"distilled, {fast.tokenizer}"
            precision = "half" if fast.half else "single"
            table.add_row(fast.name, kind, f"{fast.size / 1e6:.1f}", precision, fast.embedding or "all", near)
    out.print(table)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="As embeddb sql list shows it.")], url: UrlOption = None) -> None:
    """Take an encoder out of the database. The embeddings, their vectors and the cache of queries stay."""
    from embeddb.catalog.install import require
    from embeddb.errors import CatalogError
    from embeddb.insql import installed, installed_fast, remove_fast, remove_transformer

    with connected(url) as connection:
        require(connection)
        transformers = {one.name for one in installed(connection)}
        others = {one.name for one in installed_fast(connection)}
        if name in transformers:
            remove_transformer(connection, name)
        elif name in others:
            remove_fast(connection, name)
        else:
            known = ", ".join(sorted(transformers | others)) or "none"
            raise CatalogError(f"no encoder here is called {name!r}; there are: {known}")
        connection.commit()
    out.print(f"{name} is removed.", markup=False)
