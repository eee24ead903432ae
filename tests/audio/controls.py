"""What a trained speaker network must beat: statistics of filterbanks, and itself before training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from embeddb.encoders.speaker.deep_speaker import embed_sounds, hear
from embeddb.encoders.speaker.filterbanks import log_filterbanks, pad
from embeddb.encoders.speaker.rescnn import ResCNN, Shape
from embeddb.train.augmentation import Augmentation
from embeddb.verification import equal_error_rate, pair_scores
from embeddb.waveform import Waveform

Vectors = NDArray[np.float32]
NOISY = Augmentation(noise_db=(10.0, 20.0))


def noisy(sounds: Sequence[Waveform], seed: int) -> list[Waveform]:
    """Each through a filter and noise of its own: without them the statistics alone would do."""
    rng = np.random.default_rng(seed)
    return [Waveform(NOISY(torch.from_numpy(sound.samples[None]), rng)[0].numpy(), sound.rate) for sound in sounds]


def statistics(sounds: Sequence[Waveform]) -> Vectors:
    """Mean and deviation of each bank over time, of sounds at 16 kHz: the colour of a voice and its microphone."""
    rows = []
    for sound in sounds:
        banks, _ = log_filterbanks(*pad([sound.samples]))
        rows.append(np.concatenate([banks[0].mean(0).numpy(), banks[0].std(0).numpy()]))
    return np.asarray(rows, np.float32)


def untrained(sounds: Sequence[Waveform], shape: Shape, seed: int = 0) -> Vectors:
    """A random network, whose normalisation has seen data, so that it is as good as one can be."""
    torch.manual_seed(seed)
    network = ResCNN(shape)
    network.layers.train()
    with torch.no_grad():
        for start in range(0, len(sounds), 32):
            network(*hear(*pad([sound.samples for sound in sounds[start : start + 32]])))
    network.layers.eval()
    return np.concatenate([embed_sounds(network, [sound.samples]) for sound in sounds])


def eer(vectors: NDArray[np.float32], labels: Sequence[Hashable]) -> float:
    """The equal error rate over all pairs of rows."""
    return equal_error_rate(*pair_scores(vectors, labels)).rate
