"""``embeddb train``: encoders trained on the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embeddb.cli.output import UrlOption, engine_of, err, out, progress_bar
from embeddb.cli.train_history import als, gru4rec, item2vec
from embeddb.cli.train_speaker import speaker

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from embeddb.encoders.words import WordVectors

app = typer.Typer(help="Train encoders on your own rows.", no_args_is_help=True)
for command in (speaker, item2vec, als, gru4rec):
    app.command()(command)

Folder = Annotated[Path, typer.Option("--folder", "-o", help="Where to write the model.")]
Source = Annotated[
    str | None, typer.Argument(metavar="TABLE.COLUMN", help="Whose texts to train on.", show_default=False)
]
Query = Annotated[
    str | None, typer.Option(help="Train on the first column of this SELECT instead.", show_default=False)
]
Dim = Annotated[int, typer.Option(min=1, help="Dimensions of the vectors.")]
Window = Annotated[int, typer.Option(min=1, help="Words to either side that count as context.")]
Epochs = Annotated[int, typer.Option(min=1, help="How often all texts are read.")]
Least = Annotated[int, typer.Option(min=1, help="Occurrences that a word needs to be known.")]
Threads = Annotated[int, typer.Option(min=1, help="More than one is faster and no longer reproducible.")]
Seed = Annotated[int, typer.Option(help="Another seed, another model.")]


@app.command()
def word2vec(
    folder: Folder,
    source: Source = None,
    url: UrlOption = None,
    query: Query = None,
    dim: Dim = 100,
    window: Window = 8,
    epochs: Epochs = 15,
    least: Least = 5,
    skip_gram: Annotated[bool, typer.Option("--skip-gram/--cbow", help="CBOW is faster, for much text.")] = True,
    threads: Threads = 1,
    seed: Seed = 0,
) -> None:
    """Word2Vec: words that stand among the same words get like vectors."""
    from embeddb.train.words import WordRecipe, train_word2vec

    recipe = WordRecipe(
        dim=dim, window=window, epochs=epochs, least=least, skip_gram=skip_gram, threads=threads, seed=seed
    )
    with _texts(url, source, query) as (engine, texts), progress_bar("Training") as progress:
        _tell(engine, train_word2vec(texts, folder, recipe, progress=progress))


@app.command()
def fasttext(
    folder: Folder,
    source: Source = None,
    url: UrlOption = None,
    query: Query = None,
    dim: Dim = 100,
    window: Window = 8,
    epochs: Epochs = 15,
    least: Least = 5,
    buckets: Annotated[int, typer.Option(min=1, help="How many subwords are told apart.")] = 200_000,
    threads: Threads = 1,
    seed: Seed = 0,
) -> None:
    """FastText: as word2vec, and words that were never seen get vectors from their parts."""
    from embeddb.train.words import WordRecipe, train_fasttext

    recipe = WordRecipe(dim=dim, window=window, epochs=epochs, least=least, buckets=buckets, threads=threads, seed=seed)
    with _texts(url, source, query) as (engine, texts), progress_bar("Training") as progress:
        _tell(engine, train_fasttext(texts, folder, recipe, progress=progress))


@app.command()
def glove(
    folder: Folder,
    source: Source = None,
    url: UrlOption = None,
    query: Query = None,
    dim: Dim = 100,
    window: Window = 15,
    epochs: Epochs = 25,
    least: Least = 5,
    seed: Seed = 0,
) -> None:
    """GloVe: vectors that tell how often words meet. Run again after an interruption, it goes on where it was."""
    from embeddb.train.glove import GloveRecipe, train_glove

    recipe = GloveRecipe(dim=dim, window=window, epochs=epochs, least=least, seed=seed)
    with _texts(url, source, query) as (engine, texts), progress_bar("Training") as progress:
        _tell(engine, train_glove(texts, folder, recipe, progress=progress))


@app.command()
def adapt(
    model: Annotated[Path, typer.Option(help="Vectors: a folder, or a file of word2vec, GloVe or FastText.")],
    folder: Folder,
    source: Source = None,
    url: UrlOption = None,
    query: Query = None,
) -> None:
    """Fit word vectors from elsewhere to your texts: how often each word occurs, and what all texts have in common."""
    from embeddb.train.words import adapt

    with _texts(url, source, query) as (engine, texts), err.status("Reading …"):
        _tell(engine, adapt(model, texts, folder))


@contextmanager
def _texts(url: str | None, source: str | None, query: str | None) -> Iterator[tuple[Engine, Iterator[str]]]:
    """The database, and the texts, through a connection that is open only while they are read."""
    from sqlalchemy import text

    from embeddb.train.rows import texts

    if (source is None) == (query is None):
        raise typer.BadParameter("name TABLE.COLUMN, or a --query instead of it")
    given = source if source is not None else text(query or "")

    with engine_of(url) as engine:

        def read() -> Iterator[str]:
            with engine.connect() as reading:
                yield from texts(reading, given)

        yield engine, read()


def _tell(engine: Engine, encoder: WordVectors) -> None:
    from embeddb.train.rows import register_encoder

    with engine.begin() as connection:
        registered = register_encoder(connection, encoder)
    words = encoder.loaded.words
    out.print(f"{len(words):,} words of {encoder.dim} dimensions in {encoder.model}")
    out.print(f"encoder: {encoder!r}" + (", registered in the catalog" if registered else ""), markup=False)
