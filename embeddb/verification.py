"""Is it the same one? Verification (1:1) and identification (1:N) by cosine, for voices, faces or anything else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embeddb.encoders.embed import embed_documents
from embeddb.encoders.protocol import Encoder
from embeddb.errors import EncoderError

Scores = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)


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


class Verdict(NamedTuple):
    """Whether two inputs are the same one, and their cosine."""

    same: bool
    score: float


class Match(NamedTuple, Generic[Name]):
    """One of those enrolled, and the cosine to it."""

    name: Name
    score: float


@dataclass(frozen=True, slots=True)
class Verifier:
    """Decides by an encoder and a threshold on the cosine; ``Verifier.calibrated`` finds the threshold."""

    encoder: Encoder
    threshold: float

    @classmethod
    def calibrated(
        cls, encoder: Encoder, inputs: Sequence[Any], labels: Sequence[Hashable], *, false_accept: float = 0.01
    ) -> Verifier:
        """With the threshold that lets this share of different pairs among labelled inputs pass.

        The inputs must be of people (or things) that the encoder was not trained on, or it will be too low.
        """
        _, different = pair_scores(_embed(encoder, inputs), labels)
        return cls(encoder, threshold_at(different, false_accept))

    def verify(self, first: Any, second: Any) -> Verdict:
        """Are both inputs of the same one?"""
        one, other = _embed(self.encoder, [first, second])
        score = float(one @ other)
        return Verdict(score >= self.threshold, score)

    def enrol(self, takes: Mapping[Name, Sequence[Any]]) -> dict[Name, NDArray[np.float32]]:
        """A vector of length 1 for each name: the mean of its takes. Store them as rows to search in SQL."""
        enrolled: dict[Name, NDArray[np.float32]] = {}
        for name, inputs in takes.items():
            mean = _embed(self.encoder, inputs).mean(0)
            enrolled[name] = mean / np.linalg.norm(mean)
        return enrolled

    def identify(
        self, value: Any, enrolled: Mapping[Name, NDArray[np.float32]], *, limit: int = 1
    ) -> list[Match[Name]]:
        """Those enrolled who may be this one, best first; none where nobody reaches the threshold."""
        vector = _embed(self.encoder, [value])[0]
        matches = [Match(name, float(vector @ other)) for name, other in enrolled.items()]
        matches = [match for match in matches if match.score >= self.threshold]
        return sorted(matches, key=lambda match: match.score, reverse=True)[:limit]


def _embed(encoder: Encoder, inputs: Sequence[Any]) -> NDArray[np.float32]:
    vectors = embed_documents(encoder, inputs)
    missing = np.flatnonzero(np.isnan(vectors[:, 0]))
    if len(missing):
        raise EncoderError(f"{encoder!r} has no embedding of input {missing[0]}", position=int(missing[0]))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _read(same: ArrayLike, different: ArrayLike) -> tuple[Scores, Scores]:
    own, other = np.asarray(same, float), np.asarray(different, float)
    if not len(own) or not len(other):
        raise ValueError("scores of pairs that are the same, and of pairs that differ, are both needed")
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        raise ValueError("scores must be finite")
    return own, other
