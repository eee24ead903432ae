"""Images: from encoded bytes (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF) to upright RGB, within limits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from embeddb.errors import MissingExtra, SourceError
from embeddb.sources.files import MAX_BYTES, MAX_PIXELS, Files, digest, read_source, shorten
from embeddb.sources.fragments import cut

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

#: Pillow knows more, but others run programs (EPS), or hold further files.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


@dataclass(frozen=True, eq=False)
class Image:
    """An image to embed or to search by: a path or URL, the bytes of a file, or a PIL image.

    ``source``: a ``str`` is a name as users may have given it, and needs ``files``, the roots it may come from; a
    ``pathlib.Path`` is a file of the program's own, and is opened as it is. A name may end in the part that is meant,
    "street.jpg#xywh=40,0,64,64". ``max_bytes``, ``max_pixels``: by default
    those of ``files``, or else 64 MiB and 50 million. Nothing is read before ``decode``.
    """

    source: str | Path | bytes | Picture
    files: Files | None = None
    max_bytes: int | None = None
    max_pixels: int | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return shorten(str(self.source)) if isinstance(self.source, str | Path) else "image"

    def read(self) -> bytes:
        """The encoded bytes. Raises SourceError where they may not or cannot be read, or there are none."""
        if isinstance(self.source, bytes):
            return self.source
        if not isinstance(self.source, str | Path):
            raise SourceError(f"{self.name}: a PIL image has no encoded bytes")
        return read_source(self.source, self.files, "Image", self._max_bytes)

    @property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes: another one when the file was changed under the same name."""
        return digest(self.read())

    def decode(self) -> Picture:
        """The image, upright, in RGB. Raises SourceError, which names it, where it cannot be read."""
        max_pixels = self.max_pixels or (self.files.max_pixels if self.files else MAX_PIXELS)
        if not isinstance(self.source, str | Path | bytes):
            return _upright(self.source, self.name, max_pixels)
        return cut(self.source, decode(self.read(), name=self.name, max_bytes=self._max_bytes, max_pixels=max_pixels))

    @property
    def _max_bytes(self) -> int:
        return self.max_bytes or (self.files.max_bytes if self.files else MAX_BYTES)


def decode(data: bytes, *, name: str = "image", max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Picture:
    """The image of an encoded file: its first frame, turned as its EXIF orientation says, in RGB.

    What is transparent becomes white; 16 bits a channel become 8. ``name`` is what errors call it. Raises SourceError
    where it is larger than the limits (the header is looked at before any pixel is decoded), truncated, damaged, or of
    a format that is not read here.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise MissingExtra(f"images need Pillow: pip install 'embeddb[image]' ({error})") from error
    if len(data) > max_bytes:
        raise SourceError(f"{name}: the file is larger than {max_bytes:,} bytes: shrink it, or raise max_bytes")
    if not data:
        raise SourceError(f"{name}: the file is empty")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name, max_pixels)
            image.load()
            return _upright(image, name, max_pixels)
    except SourceError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise SourceError(f"{name}: it is none of {', '.join(FORMATS)}, or damaged at its beginning") from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise SourceError(f"{name}: more pixels than Pillow reads (PIL.Image.MAX_IMAGE_PIXELS): shrink it") from error
    except Exception as error:  # a hostile file makes Pillow's decoders raise anything
        raise SourceError(f"{name}: it does not decode as an image: {type(error).__name__}: {error}") from error


def _check_size(image: Picture, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise SourceError(
            f"{name}: {width} × {height} pixels are more than {max_pixels:,}: shrink it, or raise max_pixels"
        )
    if width < 1 or height < 1:
        raise SourceError(f"{name}: it has no pixels")


def _upright(image: Picture, name: str, max_pixels: int) -> Picture:
    import PIL.Image

    _check_size(image, name, max_pixels)
    image = _eight_bits(_turned(image), name)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = PIL.Image.new("RGBA", over.size, "white")
        image.alpha_composite(over)
    return image if image.mode == "RGB" else image.convert("RGB")


def _turned(image: Picture) -> Picture:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF is often damaged where the pixels are not
        return image


def _eight_bits(image: Picture, name: str) -> Picture:
    """Pillow's own conversion would cut all above 255 to white."""
    import numpy as np
    import PIL.Image

    if image.mode.startswith("I;16"):
        return PIL.Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise SourceError(f"{name}: 32 bit values have no agreed white: save it with 8 or 16 bits a channel")
    return image
