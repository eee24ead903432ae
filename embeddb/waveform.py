"""Sound in memory: one channel of samples and their rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embeddb.errors import MissingExtra, SourceError

Samples = NDArray[np.float32]

MIN_SECONDS: Final = 0.025
#: -80 dB of full scale: below it is the noise of a 16 bit recording of nothing.
SILENCE: Final = 1e-4
_FINEST: Final = 10_000


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
    """The same sound at ``rate`` Hz, by a polyphase filter (scipy.signal.resample_poly).

    Rates in an odd proportion are taken to be in the nearest one of numbers up to ten thousand, within some 0.01%: the
    filter is as long as the larger number, and what a header claims must not choose the memory.
    """
    if rate == waveform.rate:
        return waveform
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise MissingExtra(f"sound needs scipy: pip install 'embeddb[audio]' ({error})") from error
    proportion = Fraction(rate, waveform.rate).limit_denominator(_FINEST)
    if not proportion:
        raise SourceError(f"{waveform.rate:,} Hz is no rate of a recording")
    samples = resample_poly(waveform.samples, proportion.numerator, proportion.denominator)
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
