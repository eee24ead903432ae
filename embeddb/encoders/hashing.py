"""``Hashing``: word and character n-grams, hashed. No model, no package, the same vectors everywhere."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings
from embeddb.errors import EncoderError

_TOKEN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, repr=False)
class Hashing(Settings):
    """Texts that share words, or parts of words, come near each other; meaning is not seen.

    For tests, for installs without torch, and as the control that a model must beat. Features are words, pairs of
    neighbouring words and the 3- to 5-grams of ``<word>``, after NFKC and case folding; each has the value
    1 + log(count) and falls, with a sign, into one of ``dim`` places (Weinberger et al. 2009, "Feature Hashing
    for Large Scale Multitask Learning"); the sum has length 1. A text without a word has no embedding.
    """

    dim: int = 512

    type: ClassVar[str] = "hashing"
    modality: ClassVar[Modality] = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or self.dim < 1:
            raise EncoderError(f"Hashing dim is a positive number of dimensions, not {self.dim!r}")

    @property
    def fingerprint(self) -> str:
        # The number rises when the features or their weights change.
        return hashlib.sha256(json.dumps(["hashing", 1, self.dim]).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        """Vectors of shape (len(inputs), dim), of length 1, or NaN throughout for a text without a word."""
        vectors = np.empty((len(inputs), self.dim), np.float32)
        for row, text in enumerate(inputs):
            vectors[row] = self._encode(text)
        return vectors

    def encode_queries(self, inputs: Sequence[str]) -> Vectors:
        """The same: queries are texts like any other."""
        return self.encode_documents(inputs)

    def _encode(self, text: str) -> NDArray[np.float64]:
        tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
        if not tokens:
            return np.full(self.dim, np.nan)
        hashed = [_word_features(token) for token in tokens]
        hashed += [_hash("pair", f"{first} {second}") for first, second in pairwise(tokens)]
        features, counts = np.unique(np.frombuffer(b"".join(hashed), "<u8"), return_counts=True)
        vector = self._place(features, 1 + np.log(counts))
        if not vector.any():
            # Every feature met its opposite: the whole text counts as one feature, which nothing can cancel.
            vector = self._place(np.frombuffer(_hash("text", " ".join(tokens)), "<u8"), np.ones(1))
        return vector / np.linalg.norm(vector)

    def _place(self, features: NDArray[np.uint64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum the values into their places: the hash's lowest bit is the sign, the rest chooses the place."""
        signs = np.where(features & np.uint64(1), 1.0, -1.0)
        places = ((features >> np.uint64(1)) % np.uint64(self.dim)).astype(np.intp)
        placed = np.zeros(self.dim)
        np.add.at(placed, places, signs * values)
        return placed


def _word_features(word: str) -> bytes:
    """The hashes of a word and its parts. A run longer than any word is read, and not kept."""
    return _kept_features(word) if len(word) <= 32 else _kept_features.__wrapped__(word)


@lru_cache(maxsize=50_000)
def _kept_features(word: str) -> bytes:
    marked = f"<{word}>"
    parts = [marked[start : start + n] for n in (3, 4, 5) for start in range(len(marked) - n + 1)]
    return b"".join([_hash("word", word), *(_hash("part", part) for part in parts)])


def _hash(kind: str, feature: str) -> bytes:
    # A lone surrogate is no character, but no reason to fail either.
    return hashlib.blake2b(f"{kind} {feature}".encode(errors="surrogatepass"), digest_size=8).digest()
