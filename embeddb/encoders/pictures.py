"""What the encoders of images take: PIL images, and what decodes to one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embeddb.errors import EncoderError, SourceError

if TYPE_CHECKING:
    from PIL.Image import Image


def is_picture(value: object) -> bool:
    """Whether a value is a PIL image or has ``decode()`` to one, as ``embeddb.sources.images.Image`` does."""
    pillow = sys.modules.get("PIL.Image")  # where it was not imported nothing is an image of it
    return (pillow is not None and isinstance(value, pillow.Image)) or decodes(value)


def decodes(value: object) -> bool:
    """Whether a value is still to be decoded, as ``embeddb.Image`` and ``embeddb.Audio`` are."""
    return hasattr(value, "decode") and not isinstance(value, bytes | bytearray)


def pictures(values: Sequence[Any], *, first: int = 0) -> list[Image]:
    """The images in RGB. Raises EncoderError, with its position counted from ``first``, for a value that is none."""
    found = []
    for position, value in enumerate(values, first):
        if not is_picture(value):
            raise EncoderError(
                f"input {position} is {type(value).__name__}, not an image: give a PIL image, or "
                "embeddb.sources.images.Image(path or bytes)",
                position=position,
            )
        try:
            image = value.decode() if hasattr(value, "decode") else value
        except SourceError as error:
            raise EncoderError(f"input {position}: {error}", position=position) from error
        found.append(image if image.mode == "RGB" else image.convert("RGB"))
    return found


def as_array(image: Image) -> NDArray[np.float32]:
    """The image's values within 0 and 1, (3, height, width)."""
    return np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
