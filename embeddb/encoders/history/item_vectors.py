"""``ItemVectors``: a user as the sum of their items' vectors, the past fading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embeddb.encoders.history.base import HistoryEncoder
from embeddb.encoders.history.catalogue import Catalogue
from embeddb.encoders.history.pooling import Decay, Unit, pool
from embeddb.encoders.protocol import Vectors


@dataclass(frozen=True, slots=True, repr=False)
class ItemVectors(HistoryEncoder):
    """The pooled vectors of a user's items, from the model that ``embeddb.train.train_item2vec`` wrote.

    ``half_life``: after so many ``unit`` (seconds or events) an event counts half; None lets none fade. The vector
    is the weighted mean; compare by cosine. ``pooled`` are the vectors that are pooled, ``targets`` those
    that the result is compared with (the two sides of skip-gram).
    """

    model: str
    half_life: float | None = None
    unit: Unit = "seconds"

    type: ClassVar[str] = "item2vec"

    @property
    def decay(self) -> Decay | None:
        """How the past fades."""
        return None if self.half_life is None else Decay(self.half_life, self.unit)

    @property
    def pooled(self) -> Vectors:
        """The vectors that are pooled, (items, dim), in the order of ``items``: like items are near each other."""
        vectors: Vectors = self._catalogue.others["pooled"]
        return vectors

    def _encode(self, loaded: Catalogue, histories: Sequence[list[tuple[int, float, float]]]) -> Vectors:
        vectors = loaded.others["pooled"]
        rows = []
        for events in histories:
            state = pool(((vectors[place], at, weight) for place, at, weight in events), vectors.shape[1], self.decay)
            # Weights may cancel each other, or sum to less than nothing: then only the direction has a meaning.
            rows.append(state.vector / np.float32(state.weight if state.weight > 0 else 1))
        return np.stack(rows)
