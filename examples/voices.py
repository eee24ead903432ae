"""Invented people who say invented words, through invented microphones: harmonics of a pitch, shaped by formants.

The formants of the vowels are Peterson and Barney's (1952). A longer vocal tract lowers them all, as in life, so that
what is said and who says it are mixed in one spectrum.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from embeddb import Waveform

RATE: Final = 16_000
#: Formants in Hz, and how long it lasts in seconds, of what is voiced.
VOICED: Final = {
    "a": ((730, 1090, 2440), 0.14),
    "e": ((530, 1840, 2480), 0.12),
    "i": ((270, 2290, 3010), 0.12),
    "o": ((570, 840, 2410), 0.14),
    "u": ((300, 870, 2240), 0.12),
    "l": ((360, 1000, 2700), 0.07),
    "m": ((250, 1000, 2200), 0.07),
    "n": ((250, 1500, 2500), 0.07),
    "r": ((420, 1250, 1600), 0.08),
}
#: The middle of the noise in Hz, and its seconds, of what is not.
NOISE: Final = {"s": (5500, 0.12), "f": (3500, 0.1), "t": (4200, 0.04), "k": (1900, 0.05), "p": (900, 0.04)}
SOUNDS: Final = (*VOICED, *NOISE)


class Voice(NamedTuple):
    """``pitch`` in Hz; ``tract``: its length, 1 is usual; ``tilt``: how dull; ``own``: a factor of each formant."""

    pitch: float
    tract: float
    tilt: float
    own: tuple[float, ...]


def invent(rng: np.random.Generator) -> Voice:
    """A person's voice."""
    own = tuple(rng.normal(1, 0.12, 3).tolist())
    return Voice(float(rng.uniform(85, 255)), float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.5, 1.6)), own)


def say(word: str, voice: Voice, rng: np.random.Generator) -> Waveform:
    """A take of it, at 16 kHz: tempo, melody, microphone and noise are of this take alone."""
    tempo, pitch = rng.uniform(0.8, 1.2), voice.pitch * rng.uniform(0.95, 1.05)
    parts = [_sound(letter, voice, tempo, pitch * rng.uniform(0.95, 1.05), rng) for letter in word]
    microphone = np.concatenate([[1.0], rng.normal(0, 0.15, 8)])
    heard = lfilter(microphone, [1.0], np.concatenate(parts))
    noise = rng.standard_normal(len(heard)) * heard.std() * 10 ** (-rng.uniform(10, 20) / 20)
    return Waveform(np.asarray(0.2 * (heard + noise) / heard.std(), np.float32).clip(-1, 1), RATE)


def babble(rng: np.random.Generator, letters: int = 10) -> str:
    """Something to say: no word of any language."""
    return "".join(rng.choice(list(VOICED), letters).tolist())


def spectrum(sound: Waveform, bands: int = 40) -> NDArray[np.float64]:
    """The control, without any learning: mean and deviation of the logarithm of each band's power."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2
    bands_of = np.log(np.stack([part.sum(1) for part in np.array_split(power, bands, axis=1)], 1) + 1e-8)
    return np.concatenate([bands_of.mean(0), bands_of.std(0)])


def _sound(letter: str, voice: Voice, tempo: float, pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    if letter in NOISE:
        middle, seconds = NOISE[letter]
        return 0.15 * _resonance(rng.standard_normal(int(seconds * tempo * RATE)), middle / voice.tract, 800)
    formants, seconds = VOICED[letter]
    count = int(seconds * tempo * RATE)
    pulses = np.zeros(count)
    pulses[:: int(RATE / pitch)] = 1
    wave = lfilter([1.0], [1.0, -0.95 + 0.1 * voice.tilt], pulses)
    for number, formant in enumerate(formants):
        wave = _resonance(wave, formant / voice.tract * voice.own[number], 60 + 40 * number)
    return np.asarray(wave / (wave.std() + 1e-9)) * np.hanning(count + 2)[1:-1] ** 0.3


def _resonance(wave: NDArray[np.float64], middle: float, width: float) -> NDArray[np.float64]:
    """A resonator (Klatt 1980): ``middle`` and ``width`` in Hz."""
    radius = np.exp(-np.pi * width / RATE)
    poles = [1.0, -2 * radius * np.cos(2 * np.pi * middle / RATE), radius**2]
    return np.asarray(lfilter([sum(poles)], poles, wave))
