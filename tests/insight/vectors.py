"""Vectors of which it is known what must be found out about them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def manifold(rows: int, dim: int, inner: int, seed: int = 0) -> Vectors:
    """A cube of ``inner`` dimensions, turned into ``dim``."""
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.normal(size=(dim, inner)))
    return np.asarray(random.uniform(-1, 1, size=(rows, inner)) @ axes.T, np.float32)


def gaussian(rows: int, dim: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def decaying(rows: int, dim: int, seed: int = 0) -> Vectors:
    """Variance falls from axis to axis, and the axes are turned, so that PCA sees what a prefix does not."""
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.normal(size=(dim, dim)))
    return np.asarray(random.normal(size=(rows, dim)) * 0.8 ** np.arange(dim) @ axes.T, np.float32)
