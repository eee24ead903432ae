"""Smooth inverse frequency: rare words weigh more, and what all texts have in common is taken away.

Arora, Liang, Ma 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings"
(https://openreview.net/forum?id=SyK00v5xx).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def probabilities(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """p(w) of words that were seen so often, (words,)."""
    return counts / max(int(counts.sum()), 1)


def zipf(words: int) -> NDArray[np.float64]:
    """p(w) of words of which only the order of frequency is known: 1 / rank, as Zipf has it, summing to 1."""
    inverse = 1.0 / np.arange(1, words + 1)
    return np.asarray(inverse / inverse.sum())


def weights(probability: NDArray[np.float64], smoothing: float) -> Matrix:
    """a / (a + p(w)) for every word, (words,)."""
    return np.asarray(smoothing / (smoothing + probability), np.float32)


def principal_component(vectors: Matrix) -> Matrix:
    """The first right singular vector, (dim,), of vectors (texts, dim) that are not centred, as in the paper."""
    _, directions = np.linalg.eigh(vectors.T.astype(float) @ vectors)
    first = directions[:, -1]
    # Either sign is the same component; one of them makes the file the same every time.
    return np.asarray(first * np.sign(first[np.argmax(np.abs(first))]), np.float32)


def without(vectors: NDArray[Any], component: Matrix) -> NDArray[Any]:
    """Vectors (n, dim) less their part along ``component`` (dim,), of length 1; in the precision that they have."""
    return np.asarray(vectors - np.outer(vectors @ component, component))
