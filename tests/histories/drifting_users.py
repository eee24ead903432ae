"""Users whose taste drifts: what a recommender that knows only popularity cannot follow."""

from __future__ import annotations

import numpy as np

Row = tuple[int, int, float, float]


def drifting_users(users: int = 1000, topics: int = 40, items: int = 25, length: int = 30, seed: int = 0) -> list[Row]:
    """Rows of (user, item, seconds, weight): each user walks about a ring of topics, one step in eight events.

    Items of a topic are chosen by a Zipf law, and topics are not equally popular, so that popularity is worth
    something. Times are in order, a day apart on average.
    """
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(1, items + 1) ** 0.6
    zipf /= zipf.sum()
    home = 1 / np.arange(1, topics + 1) ** 0.5
    home /= home.sum()
    # A topic's number must not tell how popular it is, nor an item's its topic.
    names = rng.permutation(topics * items)
    rows: list[Row] = []
    for user in range(users):
        topic = int(rng.choice(topics, p=home))
        at = 0.0
        for _ in range(int(rng.integers(length // 2, length + 1))):
            if rng.random() < 0.125:
                topic = int(topic + rng.choice([-1, 1])) % topics
            chosen = topic * items + int(rng.choice(items, p=zipf))
            at += float(rng.exponential(86_400))
            rows.append((user, int(names[chosen]), at, 1.0))
    return rows
