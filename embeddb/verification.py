"""How well do scores tell pairs of the same one from pairs of different ones? Error rates and thresholds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]


class ErrorRate(NamedTuple):
    """Where false accepts and false rejects are equally frequent: that ``rate``, and the ``threshold`` there."""

    rate: float
    threshold: float


class Rates(NamedTuple):
    """The share of different pairs accepted, and of same pairs rejected, at a threshold."""

    false_accept: float
    false_reject: float


def pair_scores(vectors: NDArray[Any], labels: Sequence[Hashable]) -> tuple[Scores, Scores]:
    """Cosines of all pairs of rows: those of the same label, and those of different labels."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    cosines = np.asarray(unit @ unit.T, float)[first, second]
    codes = np.array([*map({label: code for code, label in enumerate(labels)}.__getitem__, labels)])
    same = codes[first] == codes[second]
    return cosines[same], cosines[~same]


def rates(same: ArrayLike, different: ArrayLike, threshold: float) -> Rates:
    """What happens if a pair is accepted whose score is at least ``threshold``."""
    own, other = _read(same, different)
    return Rates(float((other >= threshold).mean()), float((own < threshold).mean()))


def equal_error_rate(same: ArrayLike, different: ArrayLike) -> ErrorRate:
    """The equal error rate: the mean of both errors at the score where they are nearest to each other."""
    own, other = _read(same, different)
    thresholds = np.unique(np.concatenate([own, other]))
    false_reject = np.searchsorted(np.sort(own), thresholds) / len(own)
    false_accept = 1 - np.searchsorted(np.sort(other), thresholds) / len(other)
    best = int(np.argmin(np.abs(false_reject - false_accept)))
    return ErrorRate(float(false_reject[best] + false_accept[best]) / 2, float(thresholds[best]))


def threshold_at(different: ArrayLike, false_accept: float) -> float:
    """The lowest threshold that accepts at most this share of pairs that are different.

    A share below one in the number of pairs cannot be told from none: then it lies just above the highest.
    """
    _, other = _read([0.0], different)
    allowed = int(false_accept * len(other) + 1e-9)
    if allowed >= len(other):
        return float(other.min())
    highest = np.sort(other)[::-1]
    return float(np.nextafter(highest[allowed], np.inf))


def _read(same: ArrayLike, different: ArrayLike) -> tuple[Scores, Scores]:
    own, other = np.asarray(same, float), np.asarray(different, float)
    if not len(own) or not len(other):
        raise ValueError("scores of pairs that are the same, and of pairs that differ, are both needed")
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        raise ValueError("scores must be finite")
    return own, other
