"""Sound: from an encoded file (WAV, FLAC, OGG, MP3) to a mono float32 waveform, within limits."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.errors import MissingExtra, SourceError

if TYPE_CHECKING:
    import soundfile

Samples = NDArray[np.float32]

MAX_BYTES: Final = 256 * 2**20
#: Decoded sound is larger than its file: an hour at 48 kHz in stereo is 1.4 GB of float32.
MAX_SECONDS: Final = 3600.0
MIN_SECONDS: Final = 0.025
#: -80 dB of full scale: below it is the noise of a 16 bit recording of nothing.
SILENCE: Final = 1e-4
_BLOCK: Final = 2**18


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """One channel of sound: ``samples``, float32 of shape (n,), nominally within -1 and 1; ``rate`` in Hz.

    The rate travels with the samples, so no model takes sound at a rate that it was not trained on. ``len`` is
    the number of samples. Compared by identity.
    """

    samples: Samples
    rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples, np.float32)
        if samples.ndim != 1:
            raise SourceError(f"a waveform is one channel of samples, not an array of shape {samples.shape}")
        if self.rate < 1:
            raise SourceError(f"a sample rate is a positive number of Hz, not {self.rate}")
        object.__setattr__(self, "samples", samples)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.samples) / self.rate


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


def check(waveform: Waveform, name: str = "audio") -> None:
    """SourceError where there is nothing to embed: too short, silent throughout, or not finite."""
    if waveform.seconds < MIN_SECONDS:
        raise SourceError(f"{name}: {waveform.seconds * 1000:.1f} ms of sound, less than {MIN_SECONDS * 1000:.0f} ms")
    peak = float(np.abs(waveform.samples).max())
    if not math.isfinite(peak):
        raise SourceError(f"{name}: it holds samples that are NaN or infinite")
    if peak < SILENCE:
        raise SourceError(f"{name}: it is silent throughout: no sample is above {SILENCE:g} of full scale")


def resample(waveform: Waveform, rate: int) -> Waveform:
    """The same sound at ``rate`` Hz, by a polyphase filter (scipy.signal.resample_poly)."""
    if rate == waveform.rate:
        return waveform
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise _missing("scipy") from error
    common = math.gcd(rate, waveform.rate)
    samples = resample_poly(waveform.samples, rate // common, waveform.rate // common)
    return Waveform(samples.astype(np.float32), rate)


def windows(waveform: Waveform, seconds: float, hop: float | None = None) -> list[Waveform]:
    """The sound in windows of ``seconds``, each ``hop`` seconds after the one before (by default end to end).

    The last window is moved back to end with the sound, so that all are of one length and nothing is lost; a
    sound no longer than a window is the only one. The windows share the samples' memory.
    """
    size = round(seconds * waveform.rate)
    step = size if hop is None else round(hop * waveform.rate)
    if size < 1 or not 1 <= step <= size:
        raise SourceError(f"windows of {seconds} s every {hop} s: the hop must be above 0 and at most a window")
    if len(waveform) <= size:
        return [waveform]
    last = len(waveform) - size
    starts = [*range(0, last, step), last]
    return [Waveform(waveform.samples[start : start + size], waveform.rate) for start in starts]


def _mono(encoded: bytes, name: str, max_seconds: float) -> Waveform:
    """Decode in blocks: a header may promise more, or less, than a small file holds."""
    try:
        import soundfile
    except ImportError as error:
        raise _missing("soundfile") from error
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            limit = int(max_seconds * file.samplerate)
            if file.frames > limit:
                raise SourceError(f"{name}: it is longer than {max_seconds:g} s: cut it, or raise max_seconds")
            blocks = _blocks(file, name, limit, max_seconds)
            return Waveform(np.concatenate([np.empty(0, np.float32), *blocks]), file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{name}: it does not decode as sound: {error}") from error


def _blocks(file: soundfile.SoundFile, name: str, limit: int, max_seconds: float) -> list[Samples]:
    blocks: list[Samples] = []
    read = 0
    while len(block := file.read(_BLOCK // file.channels + 1, dtype="float32", always_2d=True)):
        read += len(block)
        if read > limit:
            raise SourceError(f"{name}: it is longer than {max_seconds:g} s: cut it, or raise max_seconds")
        blocks.append(block.mean(axis=1, dtype=np.float32))
    return blocks


def _missing(package: str) -> MissingExtra:
    return MissingExtra(f"sound needs {package}: pip install 'embeddb[audio]'")
