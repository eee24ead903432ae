"""Is it the same one? Verification (1:1) and identification (1:N) by cosine, for voices, faces or anything else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.embed import embed_documents
from embeddb.encoders.protocol import Encoder
from embeddb.errors import EncoderError
from embeddb.verification import pair_scores, threshold_at

Name = TypeVar("Name", bound=Hashable)


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

        The inputs must be of people (or things) that the encoder was not trained on, or it will be too low. Raises
        EncoderError where there are no two of them, or an input has no embedding.
        """
        if not 0 <= false_accept <= 1:
            raise EncoderError(f"false_accept is a share of pairs, between 0 and 1, not {false_accept}")
        if len(inputs) != len(labels) or len(set(labels)) < 2:
            raise EncoderError(
                f"a threshold needs inputs with a label each, of two or more: there are {len(inputs)} inputs, "
                f"{len(labels)} labels, {len(set(labels))} of them different"
            )
        _, different = pair_scores(_embed(encoder, inputs), labels)
        return cls(encoder, threshold_at(different, false_accept))

    def verify(self, first: Any, second: Any) -> Verdict:
        """Are both inputs of the same one?"""
        one, other = _embed(self.encoder, [first, second])
        score = float(one @ other)
        return Verdict(score >= self.threshold, score)

    def enrol(self, takes: Mapping[Name, Sequence[Any]]) -> dict[Name, NDArray[np.float32]]:
        """A vector of length 1 for each name: the mean of its takes. Store them as rows to search in SQL.

        Raises EncoderError for a name without a take, or with one that has no embedding.
        """
        enrolled: dict[Name, NDArray[np.float32]] = {}
        for name, inputs in takes.items():
            if not len(inputs):
                raise EncoderError(f"{name!r} has no take to enrol")
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
