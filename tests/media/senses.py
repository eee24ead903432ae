"""Encoders of images and sounds that need no training: what is alike in colour, or in pitch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from embeddb.encoders import Vectors
from embeddb.encoders.pictures import pictures
from embeddb.encoders.protocol import Modality
from embeddb.waveform import Waveform, resample


@dataclass(frozen=True)
class Colours:
    """The mean colour of each of 2 × 2 parts of an image."""

    dim: int = 12
    modality: ClassVar[Modality] = "image"
    fingerprint: ClassVar[str] = "colours"

    @property
    def config(self) -> Mapping[str, Any]:
        return {"type": "colours"}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        small = np.stack([np.asarray(image.resize((2, 2)), np.float32).ravel() + 1 for image in pictures(inputs)])
        return np.asarray(small / np.linalg.norm(small, axis=1, keepdims=True), np.float32)

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        return self.encode_documents(inputs)


@dataclass(frozen=True)
class Pitches:
    """How strong each eighth of the frequencies up to 4 kHz is."""

    dim: int = 8
    modality: ClassVar[Modality] = "audio"
    fingerprint: ClassVar[str] = "pitches"

    @property
    def config(self) -> Mapping[str, Any]:
        return {"type": "pitches"}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        return np.stack([self._bands(sound) for sound in inputs])

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        return self.encode_documents(inputs)

    def _bands(self, sound: object) -> Any:
        assert isinstance(sound, Waveform)
        power = np.abs(np.fft.rfft(resample(sound, 8_000).samples, 4096)[:-1]) ** 2
        bands = np.sqrt(power.reshape(self.dim, -1).mean(axis=1))
        return (bands / np.linalg.norm(bands)).astype(np.float32)
