"""A folder of recordings, one folder inside it for each speaker: as LibriSpeech, VoxCeleb and most others come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from embeddb.errors import SourceError
from embeddb.sources.audio import decode
from embeddb.waveform import Waveform

SUFFIXES: Final = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au"})


def recordings(
    folder: str | Path, *, rate: int | None = 16_000, skipped: Callable[[SourceError], None] | None = None
) -> Iterator[tuple[Waveform, str]]:
    """(sound, speaker) of every file below ``folder``; the speaker is the name of the first folder on the way.

    In the order of names. A link that leads out of the folder is refused. ``skipped``: told of each file that does not
    decode, which without it is raised. Raises SourceError, naming the file, for one that lies directly in ``folder``,
    and where there is none at all.
    """
    root = Path(folder).resolve()
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise SourceError(f"{folder} holds no recordings ({', '.join(sorted(SUFFIXES))})")
    for path in paths:
        inside = path.relative_to(root)
        if not path.resolve().is_relative_to(root):
            raise SourceError(f"{inside}: this link leads out of {folder}")
        if len(inside.parts) < 2:
            raise SourceError(f"{inside}: put it in a folder that is named after its speaker")
        try:
            with path.open("rb") as file:
                sound = decode(file, name=str(inside), rate=rate)
        except SourceError as error:
            if skipped is None:
                raise
            skipped(error)
        else:
            yield sound, inside.parts[0]
