"""Encoders of a user's own: no base class, only the six members."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddb.encoders import Modality, Vectors


def letters(value: Any, dim: int) -> Vectors:
    """A vector that only this value has, in practice."""
    seed = int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


class Stub:
    """Encodes by ``vector``, and remembers in ``calls`` what it was asked for."""

    def __init__(
        self, vector: Callable[[Any], Any] | None = None, *, dim: int = 4, modality: Modality = "text"
    ) -> None:
        self.dim = dim
        self.modality = modality
        self.fingerprint = "stub"
        self.vector = vector or (lambda value: letters(value, dim))
        self.calls: list[list[Any]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Stub()"

    @property
    def config(self) -> Mapping[str, Any]:
        return {"type": "stub", "dim": self.dim}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        with self._lock:
            self.calls.append(list(inputs))
        return np.array([self.vector(value) for value in inputs])

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        return self.encode_documents(inputs)
