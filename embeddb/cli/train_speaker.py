"""``embeddb train speaker``: a network that tells voices, or spoken commands, apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embeddb.cli.output import UrlOption, engine_of, err, out, progress_bar

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from embeddb.errors import SourceError
    from embeddb.waveform import Waveform

    Rows = Iterator[tuple[Waveform, str]]


def speaker(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TABLE.COLUMN|FOLDER", help="Files' names or bytes; or a folder with one inside for each speaker."
        ),
    ],
    folder: Annotated[Path, typer.Option("--folder", "-o", help="Where to write the model.")],
    label: Annotated[str, typer.Option(help="The column that says who speaks, or what is said.")] = "speaker",
    roots: Annotated[
        list[str] | None, typer.Option("--root", help="Where named files may be read from; may be repeated.")
    ] = None,
    url: UrlOption = None,
    words: Annotated[bool, typer.Option("--words", help="Labels are words: tell apart what is said.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Train this model further, on few speakers of your own.", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches that learn to name the speakers.")] = 600,
    triplets: Annotated[int, typer.Option(min=0, help="Batches that then learn to keep them apart.")] = 100,
    batch: Annotated[int, typer.Option(min=2, help="Sounds in a batch.")] = 64,
    seed: Annotated[int, typer.Option(help="Another seed, another model.")] = 0,
) -> None:
    """DeepSpeaker: voices as vectors. Run again after an interruption, it goes on from its last checkpoint."""
    from embeddb.train.speaker import SpeakerRecipe, train_speaker

    recipe = SpeakerRecipe(
        softmax_steps=steps, triplet_steps=triplets, batch=batch, seed=seed, labels="words" if words else "speakers"
    )
    is_folder = Path(source).is_dir()
    if not is_folder and not re.fullmatch(r"[^/.]+(\.[^/.]+){1,2}", source):
        raise typer.BadParameter(f"there is no folder {source}, and it is no table.column")

    def skipped(error: SourceError) -> None:
        err.print(f"left out: {error}", markup=False)

    with progress_bar("Training") as progress:

        def report(step: int, total: int, _loss: float) -> None:
            progress(step, total)

        if is_folder:
            from embeddb.sources.recordings import recordings

            encoder = train_speaker(recordings(source, skipped=skipped), folder, recipe, start=start, report=report)
            registered = False
        else:
            from embeddb.train.rows import register_encoder

            with _rows(url, source, label, roots, skipped) as (engine, rows):
                encoder = train_speaker(rows, folder, recipe, start=start, report=report)
                with engine.begin() as connection:
                    registered = register_encoder(connection, encoder)
    out.print(f"{encoder.dim} dimensions in {encoder.model}")
    out.print(f"encoder: {encoder!r}" + (", registered in the catalog" if registered else ""), markup=False)


@contextmanager
def _rows(
    url: str | None, source: str, label: str, roots: list[str] | None, skipped: Callable[[SourceError], None]
) -> Iterator[tuple[Engine, Rows]]:
    """The database, and the rows, through a connection that is open only while they are read."""
    from embeddb.sources.files import Files
    from embeddb.train.sounds import sounds

    with engine_of(url) as engine:

        def rows() -> Rows:
            with engine.connect() as reading:
                yield from sounds(reading, source, label, Files(*roots) if roots else None, skipped=skipped)

        yield engine, rows()
