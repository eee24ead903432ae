"""FastText's subwords: a vector for a word that was never seen, from its character n-grams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Subwords:
    """Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (https://arxiv.org/abs/1607.04606).

    ``vectors``: (buckets, dim), of n-grams by their hash. ``shortest``, ``longest``: characters of an n-gram.
    """

    vectors: NDArray[np.float32]
    shortest: int
    longest: int

    def vector(self, word: str) -> NDArray[np.float32] | None:
        """The mean of the vectors of the n-grams of ``<word>``, (dim,); None where it has none."""
        hashes = [_hash(gram) % len(self.vectors) for gram in self._ngrams(word)] if len(self.vectors) else []
        return np.asarray(self.vectors[hashes].mean(0), np.float32) if hashes else None

    def _ngrams(self, word: str) -> list[bytes]:
        """In FastText's sense: not the brackets alone."""
        marked = f"<{word}>"
        return [
            marked[start : start + size].encode()
            for start in range(len(marked))
            for size in range(self.shortest, min(self.longest, len(marked) - start) + 1)
            if not (size == 1 and (start == 0 or start == len(marked) - 1))
        ]


def _hash(gram: bytes) -> int:
    """FNV-1a of 32 bits, over signed bytes as FastText's dictionary.cc has it."""
    value = 2166136261
    for byte in gram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
