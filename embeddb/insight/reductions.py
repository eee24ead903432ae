"""What is lost where vectors are made smaller: recall against the vectors themselves, computed exactly on a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from embeddb.encoders.protocol import Vectors
from embeddb.insight.statistics import Places, distances, neighbours
from embeddb.metrics import MetricName

#: Candidates that an index which holds less proposes, to be ranked by the vectors.
RERANKED: Final = 40


@dataclass(frozen=True, slots=True)
class Reduction:
    """One way to make vectors smaller, and the recall@k that is left.

    ``kind``: "prefix", "pca", "halfvec", "binary" (ranked by the bits alone) or "binary+rerank". ``dim``: what is left.
    """

    kind: str
    dim: int
    recall: float


def reductions(
    vectors: Vectors, queries: Places, k: int, metric: MetricName, dims: Sequence[int] = ()
) -> tuple[Reduction, ...]:
    """Recall@k of each reduction, for the rows at ``queries`` searched among all others.

    ``dims``: to cut to, by default halves of halves. Principal components are those of the sample itself.
    """
    dim = vectors.shape[1]
    truth = neighbours(vectors, k, metric, queries=queries)
    found = [Reduction("halfvec", dim, _recall(truth, neighbours(_half(vectors), k, metric, queries=queries)))]
    candidates = min(len(vectors) - 1, max(RERANKED, k))
    near = neighbours(signs(vectors), candidates, "inner_product", queries=queries)
    found.append(Reduction("binary", dim, _recall(truth, near[:, :k])))
    found.append(Reduction("binary+rerank", dim, _recall(truth, _reranked(vectors, queries, near, k, metric))))
    # As ``embeddb fit-pca`` does it: about the mean for distances, about the origin for angles and products.
    projected = principal(vectors - vectors.mean(axis=0) if metric in ("l2", "l1") else vectors)
    for size in dims or halves(dim):
        found += [
            Reduction("prefix", size, _recall(truth, neighbours(vectors[:, :size], k, metric, queries=queries))),
            Reduction("pca", size, _recall(truth, neighbours(projected[:, :size], k, metric, queries=queries))),
        ]
    return tuple(found)


def ranks(vectors: Vectors, held: Vectors, queries: Places, k: int, metric: MetricName, by: MetricName) -> Places:
    """At which place an index that holds ``held``, compared ``by``, would propose the ``k`` truly nearest rows.

    From 1, among all other rows, the nearest of each query first: shape (queries, k).
    """
    truth = neighbours(vectors, k, metric, queries=queries)
    found = np.empty(truth.shape, np.intp)
    for row, query in enumerate(queries):
        away = distances(held[[query]], held, by)[0]
        away[query] = np.inf
        found[row] = (away < away[truth[row]][:, None]).sum(axis=1) + 1
    return found


def signs(vectors: Vectors) -> Vectors:
    """What binary quantisation keeps, as 1 and -1: their inner product orders rows as the Hamming distance does."""
    return np.where(vectors > 0, 1, -1).astype(np.float32)


def halves(dim: int) -> tuple[int, ...]:
    """Half the dimensions, a quarter and so on, down to 8, at most five of them."""
    return tuple(size for size in (dim // 2**step for step in range(1, 6)) if size >= 8)


def principal(vectors: Vectors) -> Vectors:
    """The vectors in their principal components, the largest first, about the origin."""
    wide = vectors.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)
    return np.asarray(wide @ axes[:, ::-1], np.float32)


def _half(vectors: Vectors) -> Vectors:
    return vectors.astype(np.float16).astype(np.float32)


def _reranked(vectors: Vectors, queries: Places, near: Places, k: int, metric: MetricName) -> Places:
    ranked = np.empty((len(queries), k), np.intp)
    for row, (query, candidates) in enumerate(zip(queries, near, strict=True)):
        order = np.argsort(distances(vectors[[query]], vectors[candidates], metric)[0], kind="stable")
        ranked[row] = candidates[order[:k]]
    return ranked


def _recall(truth: Places, found: Places) -> float:
    hits = sum(len(np.intersect1d(true, near)) for true, near in zip(truth, found, strict=True))
    return hits / truth.size
