"""A user's vector from the vectors of their items: the reference that the database's own must equal.

The state after an event is e' = e × γ + w × v, with γ = ½ ^ (time since the last event / half-life): exactly the sum
in which every event has decayed since it happened, in constant time an event. All of it is float32, as pgvector
computes; only γ itself is a double until it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embeddb.errors import SourceError

Vector = NDArray[np.float32]
#: A half-life in seconds, or in events ("events": each event makes the ones before it a step older).
Unit = Literal["seconds", "events"]


@dataclass(frozen=True, slots=True)
class Decay:
    """How fast the past fades: after ``half_life`` an event counts half."""

    half_life: float
    unit: Unit = "seconds"

    def __post_init__(self) -> None:
        if not self.half_life > 0 or self.unit not in ("seconds", "events"):
            raise SourceError(f"a half-life is a positive number of seconds or of events: {self}")

    def factor(self, elapsed: float) -> np.float32:
        """What is left of the past after so many seconds, or after one more event."""
        age = elapsed if self.unit == "seconds" else 1.0
        return np.float32(0.5 ** (age / self.half_life))


@dataclass(slots=True)
class Pool:
    """The running state of one user: add events in order of time; ``vector`` is the sum, as of the last event.

    ``weight`` is the sum of weights, decayed alike: ``vector / weight`` is the weighted mean.
    """

    vector: Vector
    decay: Decay | None = None
    at: float | None = None
    weight: float = 0.0

    def add(self, item: Vector, at: float = 0.0, weight: float = 1.0) -> None:
        """One more event. Raises SourceError for one from before the last: a late event needs a rebuild."""
        if self.at is not None and at < self.at:
            raise SourceError(f"an event at {at} is late: the last was at {self.at}; pool the whole history again")
        if self.decay is not None and self.at is not None:
            factor = self.decay.factor(at - self.at)
            self.vector = self.vector * factor
            self.weight *= float(factor)
        self.vector = self.vector + item * np.float32(weight)
        self.weight += weight
        self.at = at


def pool(events: Iterable[tuple[Vector, float, float]], dim: int, decay: Decay | None = None) -> Pool:
    """The state of a history of (item's vector, time, weight) in order of time."""
    state = Pool(np.zeros(dim, np.float32), decay)
    for item, at, weight in events:
        state.add(item, at, weight)
    return state
