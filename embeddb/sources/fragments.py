"""A part of a recording or picture as a source of its own: ``calls/7.flac#t=10,20``, ``street.jpg#xywh=40,0,64,64``.

Media fragments as in https://www.w3.org/TR/media-frags/: ``t`` in seconds, from and to; ``xywh`` in pixels or, with
``percent:``, in hundredths of the picture as it stands upright.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from embeddb.errors import SourceError
from embeddb.waveform import Waveform, check

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

T = TypeVar("T")

_NUMBER: Final = r"\d+(?:\.\d+)?"
_FRAGMENT: Final = re.compile(
    rf"#(?:t=(?:npt:)?(?P<start>{_NUMBER})?(?:,(?P<end>{_NUMBER}))?"
    rf"|xywh=(?P<unit>pixel:|percent:)?(?P<box>{_NUMBER}(?:,{_NUMBER}){{3}}))$"
)


@dataclass(frozen=True, slots=True)
class Span:
    """From and to, in seconds; ``end`` None is the end of the sound."""

    start: float
    end: float | None

    def cut(self, sound: Any, name: str) -> Waveform:
        """The part of a sound, as far as it goes. Raises SourceError where there is nothing to hear."""
        if not isinstance(sound, Waveform):
            raise SourceError(f"{name}: a picture has no part in time: use #xywh=")
        first, last = round(self.start * sound.rate), None if self.end is None else round(self.end * sound.rate)
        part = Waveform(sound.samples[first:last].copy(), sound.rate)  # lest it keep the whole sound in memory
        if not len(part):
            raise SourceError(f"{name}: there is no sound there, it lasts {sound.seconds:.2f} s")
        check(part, name)
        return part


@dataclass(frozen=True, slots=True)
class Box:
    """Left, top, width and height, in pixels or in hundredths of the picture's."""

    sides: tuple[float, ...]
    percent: bool

    def cut(self, picture: Any, name: str) -> Picture:
        """The part of a picture, as far as it goes. Raises SourceError where nothing of it is in the box."""
        if isinstance(picture, Waveform):
            raise SourceError(f"{name}: a sound has no part in space: use #t=")
        width, height = picture.size
        x, y, w, h = self.sides
        if self.percent:
            x, w, y, h = x * width / 100, w * width / 100, y * height / 100, h * height / 100
        left, top, right, bottom = round(x), round(y), min(round(x + w), width), min(round(y + h), height)
        if left >= right or top >= bottom:
            raise SourceError(f"{name}: nothing of the picture is there, it has {width} × {height} pixels")
        cropped: Picture = picture.crop((left, top, right, bottom))
        return cropped


def split(name: str) -> tuple[str, Span | Box | None]:
    """The file's name, and which part of it is meant; None for all. What is no fragment belongs to the name."""
    found = _FRAGMENT.search(name)
    if found is None or not (found["start"] or found["end"] or found["box"]):
        return name, None
    file = name[: found.start()]
    if found["box"]:
        return file, Box(tuple(map(float, found["box"].split(","))), found["unit"] == "percent:")
    return file, Span(float(found["start"] or 0), float(found["end"]) if found["end"] else None)


def cut(source: object, whole: T) -> T:
    """Of a decoded file the part that a user's name, a ``str``, asks for; else all of it."""
    if not isinstance(source, str):
        return whole
    part = split(source)[1]
    return whole if part is None else cast(T, part.cut(whole, source))


def passages(name: str, length: float, *, seconds: float, hop: float | None = None) -> Iterator[str]:
    """The names of a recording's parts, each to be a row: of ``seconds``, one every ``hop`` (by default end to end).

    ``length``: of the recording in seconds, ``Audio(name, files).decode().seconds``. The last part begins earlier, so
    that all are of one length; a recording that is no longer than one part is one.
    """
    step = seconds if hop is None else hop
    if not 0 < step <= seconds:
        raise SourceError(f"parts of {seconds} s every {step} s: the hop must be above 0 and at most a part")
    last = max(0.0, length - seconds)
    count = -(-last // step)  # rounded up
    for start in (*(number * step for number in range(int(count))), last):
        yield f"{name}#t={start:.6g},{min(start + seconds, length):.6g}"
