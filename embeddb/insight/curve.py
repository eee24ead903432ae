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
#: An effort grows with a power of the rows, which grows with the intrinsic dimension. Measured of pgvector's graphs,
#: from 5,000 rows to 80,000 or 250,000: exponents of .10, .17, .28, .38, .45 and .59 at intrinsic dimensions of 8, 10,
#: 15, 25, 25 (clusters) and 39.
_PER_DIMENSION: Final = 0.017
_MOST: Final = 0.7
#: Efforts that a line is drawn through to lower ones, and how steep that is: measured down to a recall of one half.
_LOW: Final = 20
_SLOPES: Final = (-1.5, -0.7)
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
    def of_ranks(cls, ranks: Places, fewer: Places, rows: int, fewer_rows: int, growth: float) -> Self:
        """By the places at which candidates are proposed (``reductions.ranks``), in a sample and in a part of it.

        The growth is that of the place within which all but a twentieth of the neighbours are; at least ``growth``, for
        in a sample of clusters it shows only once they are full.
        """
        far, near = (float(np.quantile(found, 0.95)) for found in (ranks, fewer))
        seen = math.log(max(far / near, 1)) / math.log(rows / fewer_rows)
        recalls = {effort: float(np.mean(ranks <= effort)) for effort in _EFFORTS}
        return cls(rows, ranks.size, recalls, min(1.0, max(seen, growth)))

    def at(self, effort: float, rows: float) -> float:
        """The recall to expect of so many rows.

        That of the sample at an effort that is as much smaller as the growth has it. Between measured efforts the log
        odds of a miss go straight with the effort's logarithm; below the least one on a line through the low ones.
        """
        efforts = sorted(self.recalls)
        same = math.log(effort * (self.rows / max(rows, self.rows)) ** self.growth)
        # More effort never finds less: what says otherwise is chance.
        found = np.maximum.accumulate([self.recalls[tried] for tried in efforts])
        misses = np.clip(1 - found, _HALF_A_MISS / self.asked, 1 - _HALF_A_MISS / self.asked)
        odds, places = np.log(misses / (1 - misses)), np.log(efforts)
        if same >= places[0]:
            expected = float(np.interp(same, places, odds))
        else:
            low = places <= max(math.log(_LOW), places[0])
            slope = float(np.polyfit(places[low], odds[low], 1)[0]) if low.sum() > 1 else _SLOPES[1]
            slope = max(_SLOPES[0], min(_SLOPES[1], slope))
            expected = float(np.mean(odds[low] - slope * places[low])) + slope * same
        return 1 / (1 + math.exp(expected))
