"""Ten commands in synthetic voices: what is said, whoever says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embeddb.train.speaker import SpeakerRecipe
from embeddb.waveform import Waveform
from tests.audio import espeak_voices

COMMANDS: Final = ("start", "stop", "louder", "quieter", "forward", "back", "open", "close", "save", "delete")
RECIPE: Final = SpeakerRecipe(
    softmax_steps=300, triplet_steps=0, crop=(0.5, 0.8), speeds=(0.85, 1.0, 1.15), labels="words", held_out=0
)


def spoken(voices: Sequence[str], each: int, seed: int) -> list[tuple[Waveform, str]]:
    """(sound, command): every command by every voice, with jitter of pitch and rate."""
    rng = np.random.default_rng(seed)
    return [
        (espeak_voices.say(word, voice, pitch=int(rng.integers(40, 61)), rate=int(rng.integers(150, 201))), word)
        for voice in voices
        for word in COMMANDS
        for _ in range(each)
    ]


def nearest_five(queries: NDArray[np.float32], vectors: NDArray[np.float32], labels: Sequence[str]) -> list[str]:
    """The most frequent label among the five nearest by cosine; of equals, that of the nearer."""
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).T
    found = []
    for row in np.argsort(-scores, axis=1)[:, :5]:
        near = [labels[index] for index in row]
        found.append(max(near, key=near.count))
    return found
