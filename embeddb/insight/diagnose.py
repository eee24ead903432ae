"""``diagnose``: measure an embedding's vectors on a sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from embeddb.errors import QueryError
from embeddb.insight import statistics
from embeddb.insight.diagnosis import Cost, Diagnosis, Spread
from embeddb.insight.reductions import reductions
from embeddb.insight.sample import Subject, draw, subject_of
from embeddb.insight.sizes import column_bytes, index_bytes
from embeddb.metrics import Storage
from embeddb.query.bind import Bind, connected
from embeddb.query.embedding import AnyEmbedding
from embeddb.spec import HNSW, MAX_INDEXED, IVFFlat, VectorIndex

#: Rows to search for where recall is measured.
QUERIES: Final = 500
#: Rows with another one that is as near as this count as near duplicates.
DUPLICATE: Final = 0.99
_MILLION: Final = 1_000_000


def diagnose(
    bind: Bind,
    embedding: str | AnyEmbedding,
    *,
    sample: int = 5000,
    k: int = 10,
    duplicate: float = DUPLICATE,
    seed: int = 0,
) -> Diagnosis:
    """Measure norms, dimensions, hubs, duplicates and what smaller vectors would lose, on ``sample`` rows at most.

    ``embedding``: ``table.column``, registered or not, or a declared attribute. ``duplicate``: the cosine from which
    two rows are nearly the same. Reads only. Memory and time grow with ``sample`` squared: 5,000 rows of 384 dimensions
    take some seconds. Raises QueryError where there are fewer than ``2 * k`` rows with a vector, or no such column.

    All is of the sample: in the whole table neighbours are nearer, so near duplicates are more, and recall of
    reductions is lower.
    """
    if k < 1:
        raise QueryError(f"k is at least 1, not {k}")
    with connected(bind, "diagnose") as connection:
        subject = subject_of(connection, embedding)
        drawn = draw(connection, subject, sample, seed=seed)
    vectors = drawn.vectors
    if len(vectors) < (least := max(2 * k, 10)):
        raise QueryError(f"{subject.name} gave {len(vectors)} rows with a vector: {k} neighbours of each need {least}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    nearest = statistics.neighbours(vectors, k, subject.metric)
    straight = statistics.neighbours(vectors, 2, "l2")
    alike = statistics.nearest_cosine(vectors, statistics.neighbours(vectors, 1, "cosine"))
    counts = statistics.occurrences(nearest, len(vectors))
    values = statistics.eigenvalues(vectors)
    queries = np.random.default_rng(seed).permutation(len(vectors))[:QUERIES]
    return Diagnosis(
        name=subject.name,
        metric=subject.metric,
        storage=subject.storage,
        dim=subject.dim,
        rows=drawn.rows,
        sampled=len(vectors),
        k=k,
        norms=Spread(
            float(lengths.min()), float(np.median(lengths)), float(lengths.max()), float(lengths.std() / lengths.mean())
        ),
        intrinsic=statistics.two_nn(vectors, straight),
        participation=statistics.participation_ratio(values),
        hubness=statistics.skewness(counts),
        hub=float(np.sort(counts)[::-1][: max(1, len(counts) // 100)].sum() / counts.sum()),
        mean_cosine=statistics.mean_cosine(vectors),
        duplicate_cosine=duplicate,
        duplicates=float(np.mean(alike >= duplicate)),
        reductions=reductions(vectors, queries, k, subject.metric),
        costs=tuple(_costs(subject)),
        variance=_variance(values),
        lengths=tuple(lengths.tolist()),
        counts=tuple(counts.tolist()),
    )


def _variance(values: statistics.Floats) -> dict[int, float]:
    """At up to 64 numbers of components, evenly spaced."""
    total = values.sum()
    shares = np.cumsum(values) / total if total > 0 else np.ones(len(values))
    numbers = np.unique(np.linspace(1, len(values), min(64, len(values))).round().astype(int))
    return {int(number): float(shares[number - 1]) for number in numbers}


def _costs(subject: Subject) -> Iterator[Cost]:
    choices: list[tuple[str, Storage, VectorIndex]] = [
        ("vector, HNSW()", "vector", HNSW()),
        ('vector, HNSW(cast="halfvec")', "vector", HNSW(cast="halfvec")),
        ('vector, HNSW(cast="binary")', "vector", HNSW(cast="binary")),
        ("halfvec, HNSW()", "halfvec", HNSW()),
        ('halfvec, HNSW(cast="binary")', "halfvec", HNSW(cast="binary")),
        ("vector, IVFFlat(lists=1000)", "vector", IVFFlat(lists=1000)),
        ("halfvec, IVFFlat(lists=1000)", "halfvec", IVFFlat(lists=1000)),
    ]
    for name, storage, index in choices:
        kind = "bit" if index.cast == "binary" else index.cast or storage
        ivf_l1 = subject.metric == "l1" and isinstance(index, IVFFlat)
        if subject.dim <= MAX_INDEXED[kind] and not ivf_l1:
            column = _MILLION * column_bytes(subject.dim, storage)
            yield Cost(name, column, index_bytes(_MILLION, subject.dim, storage, index))
