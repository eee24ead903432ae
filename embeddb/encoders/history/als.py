"""``ALS``: a user's factors from their whole history, given the items' factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.history.base import HistoryEncoder
from embeddb.encoders.history.catalogue import Catalogue
from embeddb.encoders.protocol import Vectors


@dataclass(frozen=True, slots=True, repr=False)
class ALS(HistoryEncoder):
    """Implicit matrix factorisation, from the model that ``embeddb.train.train_als`` wrote.

    A user is folded in by the least squares of Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit
    Feedback Datasets": order and times do not matter, weights are confidences and add up. Compare by
    inner product.
    """

    model: str

    type: ClassVar[str] = "als"

    def _encode(self, loaded: Catalogue, histories: Sequence[list[tuple[int, float, float]]]) -> Vectors:
        config = model_folder.read_config(self.folder, self.type)
        factors = loaded.targets.astype(float)
        base = factors.T @ factors + config["regularization"] * np.eye(factors.shape[1])
        users = []
        for events in histories:
            confidence: dict[int, float] = {}
            for place, _, weight in events:
                confidence[place] = confidence.get(place, 0.0) + config["alpha"] * weight
            own = factors[list(confidence)]
            values = np.array(list(confidence.values()))
            # What is disliked has a negative confidence: certain, and not wanted.
            left = base + (own.T * (np.abs(values) - 1)) @ own
            users.append(np.linalg.solve(left, np.clip(values, 0, None) @ own))
        return np.asarray(users, np.float32)
