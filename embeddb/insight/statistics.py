"""What a set of vectors looks like, by numpy alone: dimension, hubs, anisotropy, duplicates."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.protocol import Vectors
from embeddb.errors import QueryError
from embeddb.metrics import MetricName

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

#: Elements of a block of distances: 64 MB of float32.
_BLOCK: Final = 16_000_000
#: Of the ratios of TwoNN, the largest are left out of the fit, as its authors do.
_KEPT: Final = 0.9


def unit(vectors: Vectors) -> Vectors:
    """Each row at length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def distances(queries: Vectors, vectors: Vectors, metric: MetricName) -> Vectors:
    """Distances of shape (queries, vectors), in pgvector's sense, squared for l2: smaller is nearer."""
    if metric == "cosine":
        return np.asarray(1 - unit(queries) @ unit(vectors).T)
    if metric == "inner_product":
        return -(queries @ vectors.T)
    if metric == "l1":
        return np.stack([np.abs(vectors - query).sum(axis=1) for query in queries])
    # About the mean, for far from the origin the squares would cancel.
    centre = vectors.mean(axis=0)
    queries, vectors = queries - centre, vectors - centre
    squares = np.sum(queries**2, axis=1)[:, None] + np.sum(vectors**2, axis=1) - 2 * (queries @ vectors.T)
    return np.asarray(np.maximum(squares, 0))


def neighbours(vectors: Vectors, k: int, metric: MetricName, *, queries: Places | None = None) -> Places:
    """The ``k`` nearest other rows of each row, nearest first, found exactly: shape (queries, k).

    ``queries``: the places of the rows to search for, by default all.
    """
    places = np.arange(len(vectors)) if queries is None else queries
    if not 0 < k < len(vectors):
        raise QueryError(f"{len(vectors)} rows do not have {k} neighbours each")
    found = np.empty((len(places), k), np.intp)
    step = max(1, _BLOCK // len(vectors))
    for start in range(0, len(places), step):
        block = distances(vectors[places[start : start + step]], vectors, metric)
        row = np.arange(len(block))
        block[row, places[start : start + step]] = np.inf
        near = np.argpartition(block, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(block, near, axis=1), axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(near, order, axis=1)
    return found


def two_nn(vectors: Vectors, nearest: Places) -> float:
    """Intrinsic dimension by the two nearest neighbours (Facco, d'Errico, Rodriguez, Laio 2017, Scientific Reports 7).

    The ratio of a point's distances to its second and first neighbour is Pareto distributed, with the dimension as
    its exponent; this is the slope through the origin of -log(1 - F) over log(ratio). ``nearest``: two or more
    neighbours of each row, by l2. Rows that another one equals are left out; NaN where fewer than ten are left.
    """
    wide = vectors.astype(np.float64)
    first, second = (np.linalg.norm(wide - wide[nearest[:, place]], axis=1) for place in (0, 1))
    # In float32 equal vectors are neighbours at a distance of rounding.
    apart = first > 1e-6 * np.linalg.norm(wide, axis=1)
    if apart.sum() < 10:
        return float("nan")
    ratios = np.sort(np.log(second[apart] / first[apart]))
    ratios = np.maximum(ratios, 0)
    rank = np.arange(1, len(ratios) + 1)
    kept = int(_KEPT * len(ratios))
    x, y = ratios[:kept], -np.log1p(-rank[:kept] / len(ratios))
    return float(x @ y / (x @ x)) if x.any() else float("nan")


def eigenvalues(vectors: Vectors) -> Floats:
    """Of the covariance, largest first: shape (dim,), with zeros where there are fewer rows than dimensions."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    found = np.linalg.eigvalsh(centred.T @ centred / max(1, len(vectors) - 1))[::-1]
    return np.maximum(found, 0)


def participation_ratio(values: Floats) -> float:
    """How many dimensions the variance is spread over: (sum of eigenvalues)² / sum of squares; 1 to dim, 0 for none."""
    total = float(values.sum())
    return total**2 / float(values @ values) if total > 0 else 0.0


def occurrences(nearest: Places, rows: int) -> NDArray[np.intp]:
    """How often each row is among the neighbours of others: shape (rows,)."""
    return np.bincount(nearest.ravel(), minlength=rows)


def skewness(counts: NDArray[np.intp]) -> float:
    """Hubness: the skewness of k-occurrences (Radovanović, Nanopoulos, Ivanović 2010, JMLR 11). 0: no hubs."""
    away = counts - counts.mean()
    spread = float(np.sqrt(np.mean(away**2)))
    return float(np.mean(away**3)) / spread**3 if spread > 0 else 0.0


def mean_cosine(vectors: Vectors) -> float:
    """The mean cosine of two different rows: 0 for directions that are spread evenly, near 1 for a narrow cone."""
    rows = len(vectors)
    if rows < 2:
        return float("nan")
    total = unit(vectors).astype(np.float64).sum(axis=0)
    return float((total @ total - rows) / (rows * (rows - 1)))


def nearest_cosine(vectors: Vectors, nearest: Places) -> Floats:
    """The cosine of each row to the nearest other one: shape (rows,)."""
    directions = unit(vectors)
    return np.asarray(np.einsum("ij,ij->i", directions, directions[nearest[:, 0]], dtype=np.float64))
