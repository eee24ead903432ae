"""Principal components of an embedding's rows, for an encoder that makes fewer dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from embeddb.encoders import Encoder, from_config
from embeddb.encoders.protocol import Vectors
from embeddb.encoders.reduced import Projection, Reduced, write
from embeddb.errors import QueryError
from embeddb.insight.sample import subject_of
from embeddb.insight.statistics import unit
from embeddb.metrics import MetricName
from embeddb.query.bind import Bind, connected
from embeddb.query.embedding import AnyEmbedding

#: Rows that are read and added up at a time.
FETCHED: Final = 1000


class Moments:
    """First and second moments of vectors that are seen once, in double precision: all that components need."""

    def __init__(self, dim: int) -> None:
        self.rows = 0
        self.total: NDArray[np.float64] = np.zeros(dim)
        self.products: NDArray[np.float64] = np.zeros((dim, dim))

    def add(self, vectors: Vectors) -> None:
        """Count in rows of shape (n, dim)."""
        wide = vectors.astype(np.float64)
        self.rows += len(wide)
        self.total += wide.sum(axis=0)
        self.products += wide.T @ wide

    def projection(self, dim: int, *, centred: bool) -> tuple[Projection, float]:
        """The ``dim`` best components, and the share of all squares that they keep.

        ``centred``: about the mean, as for distances; else about the origin, as angles and products need it. These are
        the best of all projections for them (Eckart and Young 1936).
        """
        mean = self.total / self.rows if centred else np.zeros(len(self.total))
        values, axes = np.linalg.eigh(self.products / self.rows - np.outer(mean, mean))
        kept = axes[:, ::-1][:, :dim].T
        # An eigenvector's sign is arbitrary: fixed, so that the same rows give the same encoder.
        kept = kept * np.where(np.take_along_axis(kept, np.abs(kept).argmax(axis=1)[:, None], axis=1) < 0, -1, 1)
        values = np.maximum(values[::-1], 0)
        share = float(values[:dim].sum() / values.sum()) if values.any() else 1.0
        return Projection(mean.astype(np.float32), kept.astype(np.float32)), share


@dataclass(frozen=True, slots=True)
class Fitted:
    """What ``fit_pca`` wrote: ``kept`` is the share of the squares that is left. ``encoder``: None where the column's
    own is not known."""

    name: str
    folder: Path
    rows: int
    dim: int
    kept: float
    encoder: Reduced | None


def fit_pca(
    bind: Bind,
    embedding: str | AnyEmbedding,
    dim: int,
    folder: str | Path,
    *,
    encoder: Encoder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Fit ``dim`` principal components to all rows and write them into ``folder``, for ``Reduced``.

    ``encoder``: what embedded the rows, by default the one declared. For cosine and inner product the components are
    taken about the origin, of unit vectors for cosine; for distances about the mean. With as many components as the
    column has dimensions nothing is lost: vectors are only turned, cosine, inner product and L2 stay as they are, and
    their first dimensions say most, as an index of a prefix needs them. Reads each row once, some at a time; memory is
    dimensions squared. Raises QueryError where ``dim`` is more than that, or there are fewer rows.
    """
    with connected(bind, "fit_pca") as connection:
        subject = subject_of(connection, embedding)
        if not 1 <= dim <= subject.dim:
            raise QueryError(f"{subject.name} has {subject.dim} dimensions: keep between 1 and all of them, not {dim}")
        if encoder is None and subject.spec is not None:
            encoder = from_config(subject.spec.encoder)
        moments = Moments(subject.dim)
        total = connection.scalar(select(func.count(subject.column))) or 0
        rows: Any = select(subject.vector).where(subject.column.is_not(None))
        with connection.scalars(rows, execution_options={"yield_per": FETCHED}) as result:
            for part in result.partitions():
                moments.add(_prepared(np.stack(part), subject.metric))
                if progress is not None:
                    progress(moments.rows, max(total, moments.rows))
    if moments.rows < dim:
        raise QueryError(f"{subject.name} has {moments.rows} rows with a vector, too few for {dim} components")
    projection, kept = moments.projection(dim, centred=subject.metric in ("l2", "l1"))
    folder = Path(folder)
    told = {
        "from": subject.dim,
        "metric": subject.metric,
        "rows": moments.rows,
        "kept": kept,
        "fingerprint": None if encoder is None else encoder.fingerprint,
    }
    write(folder, projection, told)
    reduced = None if encoder is None else Reduced(encoder, str(folder))
    return Fitted(subject.name, folder, moments.rows, dim, kept, reduced)


def _prepared(vectors: Vectors, metric: MetricName) -> Vectors:
    return unit(vectors) if metric == "cosine" else vectors
