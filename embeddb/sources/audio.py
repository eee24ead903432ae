"""Sound: from an encoded file (WAV, FLAC, OGG, MP3) to a mono float32 waveform, within limits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from embeddb.errors import MissingExtra, SourceError
from embeddb.sources.files import MAX_SECONDS, Files, read_source, shorten
from embeddb.sources.fragments import cut
from embeddb.waveform import Samples, Waveform, check, resample

if TYPE_CHECKING:
    import soundfile

MAX_BYTES: Final = 256 * 2**20
_BLOCK: Final = 2**18


@dataclass(frozen=True, eq=False)
class Audio:
    """A sound to embed or to search by: a path or URL, the bytes of a file, or a ``Waveform``.

    ``source``: a ``str`` is a name as users may have given it, and needs ``files``, the roots it may come from; a
    ``pathlib.Path`` is a file of the program's own, and is opened as it is. A name may end in the part that is meant,
    "calls/7.flac#t=10,20". ``max_bytes``, ``max_seconds``: by default
    those of ``files``, or else 256 MiB and an hour. Nothing is read before ``decode``.
    """

    source: str | Path | bytes | Waveform
    files: Files | None = None
    max_bytes: int | None = None
    max_seconds: float | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return shorten(str(self.source)) if isinstance(self.source, str | Path) else "audio"

    def decode(self) -> Waveform:
        """The sound, mono, at its own rate. Raises SourceError, which names it, where it cannot be read."""
        if isinstance(self.source, Waveform):
            check(self.source, self.name)
            return self.source
        max_bytes = self.max_bytes or (self.files.max_bytes if self.files else MAX_BYTES)
        max_seconds = self.max_seconds or (self.files.max_seconds if self.files else MAX_SECONDS)
        data = self.source
        if not isinstance(data, bytes):
            data = read_source(data, self.files, "Audio", max_bytes)
        return cut(self.source, decode(data, name=self.name, max_bytes=max_bytes, max_seconds=max_seconds))


def decode(
    data: bytes | BinaryIO,
    *,
    name: str = "audio",
    rate: int | None = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> Waveform:
    """The sound of an encoded file, its channels averaged, at ``rate`` Hz if given, else at its own.

    ``data``: the file's bytes, or a binary file object, read from where it stands. ``name`` is what errors call
    it. Raises SourceError where it is larger or longer than the limits, shorter than 25 ms, of a format that
    libsndfile does not know, damaged, silent or not finite. http://www.mega-nerd.com/libsndfile/
    """
    encoded = data if isinstance(data, bytes) else data.read(max_bytes + 1)
    if len(encoded) > max_bytes:
        raise SourceError(f"{name}: the file is larger than {max_bytes:,} bytes: shorten it, or raise max_bytes")
    if not encoded:
        raise SourceError(f"{name}: the file is empty")
    waveform = _mono(encoded, name, max_seconds)
    check(waveform, name)
    return waveform if rate is None else resample(waveform, rate)


class _Encoded(io.BytesIO):
    """A file that is never sought before its start: from libsndfile's callbacks no error could be raised."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.getbuffer().nbytes}[whence]
        return super().seek(max(0, base + offset))


def _mono(encoded: bytes, name: str, max_seconds: float) -> Waveform:
    """Decode in blocks: a header may promise more, or less, than a small file holds."""
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtra(f"sound needs soundfile: pip install 'embeddb[audio]' ({error})") from error
    try:
        with soundfile.SoundFile(_Encoded(encoded)) as file:
            limit = int(max_seconds * file.samplerate)
            if file.frames > limit:
                raise SourceError(f"{name}: it is longer than {max_seconds:g} s: cut it, or raise max_seconds")
            blocks = _blocks(file, name, limit, max_seconds)
            return Waveform(np.concatenate([np.empty(0, np.float32), *blocks]), file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, SourceError):
            raise
        # Without the name that libsndfile's error gives the object.
        said = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise SourceError(f"{name}: it does not decode as sound: {said}") from error


def _blocks(file: soundfile.SoundFile, name: str, limit: int, max_seconds: float) -> list[Samples]:
    blocks: list[Samples] = []
    read = 0
    while len(block := file.read(_BLOCK // file.channels + 1, dtype="float32", always_2d=True)):
        read += len(block)
        if read > limit:
            raise SourceError(f"{name}: it is longer than {max_seconds:g} s: cut it, or raise max_seconds")
        blocks.append(block.mean(axis=1, dtype=np.float32))
    return blocks
