"""How good is a history model? Each user's last item is kept back, and looked for among the first k of all items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embeddb.encoders.history.base import HistoryEncoder
from embeddb.encoders.history.events import History, Item
from embeddb.encoders.protocol import Vectors
from embeddb.errors import EncoderError


class HitRates(NamedTuple):
    """Shares of users whose kept-back item is among the first k: by the model, and by popularity alone."""

    model: float
    popularity: float
    users: int


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """``train``: histories without their last event; ``kept``: the item of that event.

    A user who had the item before is trained on but not asked about: what was seen is never recommended.
    """

    train: Mapping[Hashable, History]
    kept: Mapping[Hashable, Item]

    @classmethod
    def of(cls, histories: Mapping[Hashable, History]) -> LeaveOneOut:
        """Split histories that are in order of time."""
        train = {user: history[:-1] for user, history in histories.items() if len(history) > 1}
        kept = {
            user: histories[user][-1].item
            for user, history in train.items()
            if all(event.item != histories[user][-1].item for event in history)
        }
        return cls(train, kept)

    def hit_rates(
        self, model: HistoryEncoder, k: int = 10, batch: int = 512, *, targets: Vectors | None = None
    ) -> HitRates:
        """HR@k over the full ranking of all items but those seen. A cold user, or item, is a miss for the model.

        ``targets``: (items, dim), what users are compared with instead of the model's own.
        """
        if not self.kept:
            raise EncoderError("no user has a last item that is new to them: there is nothing to measure")
        targets = model.targets if targets is None else targets
        places = {item: place for place, item in enumerate(model.items)}
        counts = Counter(event.item for history in self.train.values() for event in history)
        popularity = np.array([counts[item] for item in model.items], float)
        users = list(self.kept)
        hits, popular = 0, 0
        for start in range(0, len(users), batch):
            some = users[start : start + batch]
            scores = model.encode_documents([self.train[user] for user in some]) @ targets.T
            for user, row in zip(some, scores, strict=True):
                kept = places.get(self.kept[user])
                if kept is None:
                    continue
                seen = [places[event.item] for event in self.train[user] if event.item in places]
                hits += _hit(row, kept, seen, k)
                popular += _hit(popularity, kept, seen, k)
        return HitRates(hits / len(users), popular / len(users), len(users))


def _hit(scores: np.ndarray, kept: int, seen: list[int], k: int) -> bool:
    """Is the item among the first k? Of equal scores, the more frequent item (the earlier one) comes first."""
    ahead = scores > scores[kept]
    ahead[:kept] |= scores[:kept] == scores[kept]
    ahead[seen] = False
    return bool(np.isfinite(scores[kept]) and ahead.sum() < k)
