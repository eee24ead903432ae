"""Labelled sounds in memory, and what a step of training draws from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.speaker.filterbanks import RATE
from embeddb.waveform import Waveform, check, resample


@dataclass(frozen=True, slots=True)
class Voices:
    """Sounds at 16 kHz as 16 bit samples, and who speaks: ``labels`` are places in ``names``."""

    sounds: list[NDArray[np.int16]]
    labels: NDArray[np.int64]
    names: list[str]

    @classmethod
    def read(cls, rows: Iterable[tuple[Waveform, str]]) -> Voices:
        """The rows, in their order."""
        sounds: list[NDArray[np.int16]] = []
        speakers: list[str] = []
        for position, (waveform, speaker) in enumerate(rows):
            check(waveform, f"row {position} ({speaker})")
            samples = resample(waveform, RATE).samples
            # Loudness does not matter, so all of the 16 bits are used.
            sounds.append(np.rint(samples / np.abs(samples).max() * 32767).astype(np.int16))
            speakers.append(speaker)
        names, labels = np.unique(np.array(speakers, dtype=object).astype(str), return_inverse=True)
        return cls(sounds, labels.astype(np.int64), names.tolist())

    def of(self, keep: NDArray[np.bool_]) -> Voices:
        """Those sounds, and the speakers that have any."""
        present, labels = np.unique(self.labels[keep], return_inverse=True)
        sounds = [self.sounds[index] for index in np.flatnonzero(keep)]
        return Voices(sounds, labels.astype(np.int64), [self.names[label] for label in present])

    def at_speeds(self, speeds: Sequence[float], *, same: bool) -> Voices:
        """Every sound at each speed, of the same labels, or of as many times more."""
        sounds = [_faster(sound, speed) for speed in speeds for sound in self.sounds]
        if same:
            return Voices(sounds, np.tile(self.labels, len(speeds)), self.names)
        labels = [self.labels + turn * len(self.names) for turn in range(len(speeds))]
        return Voices(
            sounds, np.concatenate(labels), [f"{name} × {speed:g}" for speed in speeds for name in self.names]
        )

    @property
    def digest(self) -> str:
        """Of the sounds, their order and their speakers."""
        hashed = hashlib.sha256(repr((self.names, self.labels.tolist())).encode())
        for sound in self.sounds:
            hashed.update(sound.tobytes())
        return hashed.hexdigest()

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """So many different sounds, or all."""
        return rng.choice(len(self.sounds), min(count, len(self.sounds)), replace=False)

    def draw_takes(self, speakers: int, takes: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``takes`` sounds of each of so many speakers, or of all; a speaker with fewer sounds repeats them."""
        drawn = []
        for label in rng.choice(len(self.names), min(speakers, len(self.names)), replace=False):
            own = np.flatnonzero(self.labels == label)
            drawn.append(rng.choice(own, takes, replace=len(own) < takes))
        return np.concatenate(drawn)

    def crops(self, chosen: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random piece of ``size`` samples of each, within -1 and 1."""
        pieces = np.empty((len(chosen), size), np.float32)
        for row, index in enumerate(chosen):
            sound = self.sounds[index]
            if len(sound) < size:
                sound = np.tile(sound, -(-size // len(sound)))
            at = int(rng.integers(0, len(sound) - size + 1))
            pieces[row] = sound[at : at + size]
        pieces /= 32767
        return pieces


def _faster(sound: NDArray[np.int16], speed: float) -> NDArray[np.int16]:
    ratio = Fraction(speed).limit_denominator(20)
    faster = resample(Waveform(sound.astype(np.float32), ratio.numerator), ratio.denominator).samples
    return np.rint(np.clip(faster, -32767, 32767)).astype(np.int16)
