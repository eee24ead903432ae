"""``embeddb distill``: a fast encoder for SQL, from the rows that are embedded."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from embeddb.cli.output import UrlOption, connected, err, out, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from embeddb.encoders import Encoder
    from embeddb.insql import Fast


#: A cosine below which words are seldom the right tokens.
_POOR: Final = 0.4


class TokenizerName(StrEnum):
    """What texts are taken apart into."""

    lexemes = "lexemes"
    ngrams = "ngrams"


def command(
    name: Annotated[str, typer.Argument(metavar="TABLE.COLUMN", help="The embedding.")],
    url: UrlOption = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="As it was done last, and only if the rows or the encoder have changed.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(help="A text search configuration, by default the database's.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        TokenizerName, typer.Option(help="ngrams: pieces of characters, for Japanese, Thai, Korean and the like.")
    ] = TokenizerName.lexemes,
    rows: Annotated[int, typer.Option(min=50, help="Rows to learn from at most.")] = 50_000,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens at most, about 1 kB each at 384 dimensions.")] = 50_000,
    pieces: Annotated[
        int, typer.Option(min=0, help="Sentences of the rows to embed as questions and learn from: slower, nearer.")
    ] = 0,
    half: Annotated[bool, typer.Option("--half/--single", help="Precision of the token vectors.")] = True,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A folder for the state; by default below $EMBEDDB_CACHE.", show_default=False),
    ] = None,
) -> None:
    """Fit token vectors to the rows of an embedding, so that embeddb.embed is fast in SQL alone.

    Run again after an interruption, it goes on where it was. Prints how near the result comes to the true encoder.
    """
    from embeddb.train.distil import DistilRecipe, distil, outdated, recipe_of

    recipe = DistilRecipe(tokenizer=tokenizer.value, config=config, rows=rows, vocabulary=tokens, pieces=pieces)
    with connected(url) as connection:
        if refresh:
            reason = outdated(connection, name)
            if reason is None:
                out.print(f"{name} is well: no refresh is needed.")
                return
            err.print(f"{name}: {reason}.", markup=False)
            recipe, half = recipe_of(connection, name) or (recipe, half)
        encoder = _encoder(connection, name)
        with _stages() as told:
            fast = distil(
                connection,
                name,
                encoder,
                recipe,
                half=half,
                checkpoint=checkpoint or _folder(connection, name),
                told=told,
            )
        connection.commit()
    tell(fast)


def tell(fast: Fast) -> None:
    """What came of it, for people."""
    agreement = fast.agreement or {}
    out.print(f"{fast.tokens:,} tokens, {fast.size / 1e6:.1f} MB, as {fast.name}", markup=False)
    out.print(
        f"On {agreement['texts']:,} texts held out: cosine {agreement['cosine']:.3f} to the true vectors, "
        f"{agreement['nearest']:.0%} of the ten nearest rows the same."
    )
    if agreement["cosine"] < _POOR and fast.tokenizer == "lexemes":
        out.print("That is far from them. Without blanks between words, --tokenizer ngrams comes nearer.")


def _encoder(connection: Connection, name: str) -> Encoder | None:
    """The embedding's encoder; None, and a word about it, where it cannot be had here."""
    from embeddb.encoders import from_config
    from embeddb.errors import EmbeddbError
    from embeddb.insql.distill import subject

    what = subject(connection, name)
    try:
        encoder = from_config(what.config)
        encoder.encode_queries(["planes that land on water"])
    except (EmbeddbError, ImportError, OSError) as error:
        err.print(f"The encoder is not at hand, so only rows are learnt from: {error}", markup=False)
        return None
    return encoder


def _folder(connection: Connection, name: str) -> Path:
    """Where the state of this run is, by database and embedding."""
    from sqlalchemy import text

    database = connection.scalar(text("SELECT current_database()"))
    root = Path(os.environ.get("EMBEDDB_CACHE") or Path.home() / ".cache" / "embeddb")
    return (
        root / "distill" / hashlib.sha256(f"{connection.engine.url.host} {database} {name}".encode()).hexdigest()[:16]
    )


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar after the other, one for each thing that is done."""
    with ExitStack() as bars:
        open_bar: tuple[str, Callable[[int, int], None]] | None = None

        def told(what: str, done: int, total: int) -> None:
            nonlocal open_bar
            if open_bar is None or open_bar[0] != what:
                bars.close()
                open_bar = what, bars.enter_context(progress_bar(what))
            open_bar[1](done, total)

        yield told
