"""What is found out about an embedding's vectors, as values, and as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from embeddb.insight.reductions import Reduction
from embeddb.metrics import MetricName, Storage


class Spread(NamedTuple):
    """Of the vectors' lengths; ``spread`` is the standard deviation by the mean."""

    least: float
    median: float
    most: float
    spread: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes per million rows: the column's vectors, and their index. ``name`` is the declaration's wording."""

    name: str
    column: float
    index: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An embedding's vectors, measured on a sample of its rows.

    ``rows``: with a vector, an estimate in a large table. ``sampled``: that were read. ``intrinsic``: intrinsic
    dimension by TwoNN. ``participation``: participation ratio of the covariance's eigenvalues. ``hubness``: skewness
    of the k-occurrences. ``hub``: the share of all neighbours that the busiest hundredth of the rows are (0.01 where
    all are alike). ``mean_cosine``: of two different rows. ``duplicates``: the share of rows with another one within
    ``duplicate_cosine``. ``reductions``: recall@k of smaller vectors. ``costs``: by storage and index.
    ``variance``: the share of the variance in the first so many principal components, by their number.
    ``lengths``, ``counts``: histograms' data, the norms and the k-occurrences of the sampled rows.
    """

    name: str
    metric: MetricName
    storage: Storage
    dim: int
    rows: int
    sampled: int
    k: int
    norms: Spread
    intrinsic: float
    participation: float
    hubness: float
    hub: float
    mean_cosine: float
    duplicate_cosine: float
    duplicates: float
    reductions: tuple[Reduction, ...]
    costs: tuple[Cost, ...]
    variance: Mapping[int, float]
    lengths: tuple[float, ...]
    counts: tuple[int, ...]

    def recall_of(self, kind: str, dim: int | None = None) -> float:
        """The recall@k of a reduction; KeyError where it was not measured."""
        for reduction in self.reductions:
            if reduction.kind == kind and dim in (None, reduction.dim):
                return reduction.recall
        raise KeyError(kind, dim)

    @property
    def advice(self) -> tuple[str, ...]:
        """What follows from the figures, each with its reason."""
        from embeddb.insight.rules import advice

        return advice(self)

    def markdown(self, plot: str | None = None) -> str:
        """The report; ``plot``: the address of a picture to show in it."""
        from embeddb.insight.report import markdown

        return markdown(self, plot)

    def plot(self, path: str | Path) -> None:
        """Draw norms, k-occurrences, variance and recall into a PNG. Needs matplotlib; MissingExtra without."""
        from embeddb.insight.report import plot

        plot(self, Path(path))
