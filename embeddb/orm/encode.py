"""From texts to vectors, for everything that writes: off the event loop, with errors that name the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embeddb.encoders import Encoder, Progress, embed_documents
from embeddb.errors import EncoderError
from embeddb.orm.offload import offload
from embeddb.vectors import Vector


def encode_texts(
    encoder: Encoder,
    texts: Sequence[str | None],
    *,
    name: Callable[[int], str],
    progress: Progress | None = None,
) -> list[Vector | None]:
    """A vector for each text; None for a text of None, and where the encoder found nothing to embed.

    ``name(n)``: what an error calls the row of text n. Raises the encoder's EncoderError with its rows' names.
    """
    positions = [position for position, text in enumerate(texts) if text is not None]
    vectors: list[Vector | None] = [None] * len(texts)
    if not positions:
        return vectors
    try:
        encoded = offload(embed_documents, encoder, [texts[position] for position in positions], progress=progress)
    except EncoderError as error:
        at = [positions[error.position]] if error.position is not None else positions
        rows = ", ".join(name(position) for position in at[:3]) + (f" and {len(at) - 3} more" if len(at) > 3 else "")
        # The class stays: a caller may want to wait for RateLimited and to retry TransientEncoderError.
        raise type(error)(f"{encoder!r} cannot embed {rows}: {error}") from error
    for position, vector in zip(positions, encoded, strict=True):
        if not np.isnan(vector[0]):
            vectors[position] = vector
    return vectors
