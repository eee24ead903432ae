"""From sources to vectors, for everything that writes: off the event loop, with errors that name the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embeddb.encoders import Encoder, Progress, embed_documents
from embeddb.errors import EncoderError
from embeddb.orm.offload import offload
from embeddb.sources.inputs import Part, Reader, in_parts
from embeddb.vectors import Vector


def encode_rows(
    encoder: Encoder,
    reader: Reader,
    located: Sequence[str | bytes | None],
    *,
    name: Callable[[int], str],
    progress: Progress | None = None,
) -> list[Vector | None]:
    """A vector for each row's text or file; None for one of None, and where the encoder found nothing to embed.

    ``located``: what ``Inputs.locate`` made of each row. ``name(n)``: what an error calls row n. Raises SourceError
    for a file that cannot be read, and the encoder's EncoderError, both with the names of their rows.
    """
    vectors: list[Vector | None] = [None] * len(located)
    found = [(position, value) for position, value in enumerate(located) if value is not None]
    if found:
        offload(_encode, encoder, reader, found, vectors, name, progress)
    return vectors


def _encode(
    encoder: Encoder,
    reader: Reader,
    located: Sequence[tuple[int, str | bytes]],
    vectors: list[Vector | None],
    name: Callable[[int], str],
    progress: Progress | None,
) -> None:
    done = 0

    def report(part_done: int, _: int) -> None:
        if progress is not None:
            progress(done + part_done, len(located))

    for part in in_parts(located, reader.reading(), ahead=reader.ahead):
        if part.failed:
            position, error = part.failed[0]
            raise type(error)(f"{name(position)} cannot be read: {error}") from error
        for position, vector in zip((row for row, _ in part.inputs), _embed(encoder, part, name, report), strict=True):
            if not np.isnan(vector[0]):
                vectors[position] = vector
        done += len(part.inputs)


def _embed(encoder: Encoder, part: Part[int], name: Callable[[int], str], progress: Progress) -> Sequence[Vector]:
    positions = [position for position, _ in part.inputs]
    try:
        return list(embed_documents(encoder, [value for _, value in part.inputs], progress=progress))
    except EncoderError as error:
        at = [positions[error.position]] if error.position is not None else positions
        rows = ", ".join(name(position) for position in at[:3]) + (f" and {len(at) - 3} more" if len(at) > 3 else "")
        # The class stays: a caller may want to wait for RateLimited and to retry TransientEncoderError.
        raise type(error)(f"{encoder!r} cannot embed {rows}: {error}") from error
