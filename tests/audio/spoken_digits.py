"""The Free Spoken Digit Dataset (CC BY-SA 4.0): four people say digits, at 8 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddb.sources.audio import decode
from embeddb.train.augmentation import Augmentation
from embeddb.train.speaker import SpeakerRecipe
from embeddb.verification import equal_error_rate
from embeddb.waveform import Waveform

#: Three speakers are few, so their voices are also played slower and faster; each was recorded in one place, and
#: takes are half a second, so nothing else is disturbed.
FURTHER: Final = SpeakerRecipe(
    softmax_steps=200,
    triplet_steps=0,
    crop=(0.3, 0.6),
    learning_rate=2e-3,
    speeds=(0.8, 0.9, 1.0, 1.1, 1.25),
    augmentation=Augmentation(colour=0, noise_db=None),
    held_out=0,
)


class Take(NamedTuple):
    """One recording; numbers 0 to 4 are the dataset's own test takes."""

    sound: Waveform
    digit: str
    speaker: str
    number: int


def read(folder: Path) -> list[Take]:
    """All takes at 16 kHz, in the order of names."""
    takes = []
    for path in sorted(folder.glob("*.wav")):
        digit, speaker, number = path.stem.split("_")
        takes.append(Take(decode(path.read_bytes(), name=path.name, rate=16_000), digit, speaker, int(number)))
    return takes


def eer(vectors: NDArray[np.float32], speakers: Sequence[str], claimed: str) -> float:
    """The equal error rate of one speaker: pairs of their own takes against pairs with anybody else's."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    own = np.array([speaker == claimed for speaker in speakers])
    cosines = unit[own] @ unit.T
    same = cosines[:, own][np.triu_indices(int(own.sum()), 1)]
    return equal_error_rate(same, cosines[:, ~own].ravel()).rate
