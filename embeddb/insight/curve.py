"""How recall depends on effort and on rows: measured on a sample, carried over to the whole table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from embeddb.insight.statistics import Places

#: Where none of a sample's neighbours was missed, this many are supposed.
_HALF_A_MISS: Final = 0.5
#: An effort grows with a power of the rows, which grows with the intrinsic dimension. Measured of graphs over normal
#: distributions of 8, 16 and 32 dimensions, falling spectra and clusters, from 5,000 to 80,000 rows: exponents of
#: .10, .28, .38, .17 and .33 at intrinsic dimensions of 8, 15, 25, 10 and 27.
_PER_DIMENSION: Final = 0.015
_MOST: Final = 0.7
_EFFORTS: Final = (10, 14, 20, 28, 40, 64, 100, 200, 400, 1000)


def growth_of(intrinsic: float) -> float:
    """By which power of the rows an effort grows at the same recall; that of 20 dimensions where nothing is known."""
    return min(_MOST, _PER_DIMENSION * (20.0 if math.isnan(intrinsic) else intrinsic))


@dataclass(frozen=True, slots=True)
class Curve:
    """Recall by effort, as ``rows`` rows and ``asked`` neighbours gave it, and how the effort ``growth``s with rows."""

    rows: int
    asked: int
    recalls: Mapping[int, float]
    growth: float

    @classmethod
    def of_ranks(cls, ranks: Places, fewer: Places, rows: int, fewer_rows: int) -> Self:
        """By the places at which candidates are proposed (``reductions.ranks``), in a sample and in a part of it.

        The growth is that of the place within which all but a twentieth of the neighbours are.
        """
        far, near = (float(np.quantile(found, 0.95)) for found in (ranks, fewer))
        growth = math.log(max(far / near, 1)) / math.log(rows / fewer_rows)
        recalls = {effort: float(np.mean(ranks <= effort)) for effort in _EFFORTS}
        return cls(rows, ranks.size, recalls, min(1.0, growth))

    def at(self, effort: float, rows: float) -> float:
        """The recall to expect of so many rows.

        That of the sample at an effort that is as much smaller as the growth has it; between measured efforts by the
        logarithm of the misses over that of the effort, and below the least one on the same line.
        """
        efforts = sorted(self.recalls)
        same = math.log(effort * (self.rows / max(rows, self.rows)) ** self.growth)
        # More effort never finds less: what says otherwise is chance.
        found = np.maximum.accumulate([self.recalls[tried] for tried in efforts])
        misses = np.log(np.maximum(1 - found, _HALF_A_MISS / self.asked))
        places = np.log(efforts)
        if same >= places[0] or len(efforts) < 2:
            return float(1 - np.exp(np.interp(same, places, misses)))
        higher = min(2, len(efforts) - 1)
        slope = (misses[higher] - misses[0]) / (places[higher] - places[0])
        return float(max(0.0, 1 - np.exp(misses[0] + slope * (same - places[0]))))
