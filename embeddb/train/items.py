"""Histories as a model trains on them: items as places in a list, the most frequent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from embeddb.encoders.history.events import Event, History, Item, histories
from embeddb.errors import EncoderError

#: Rows of an events table, (user, item, time, weight), or histories that are already gathered.
Events = Iterable[tuple[Any, ...]] | Mapping[Hashable, History]


def gather(events: Events, least: int) -> tuple[list[Item], list[History]]:
    """The items that occur ``least`` times or more, and every user's events of those; users without any are left out.

    Raises EncoderError where nothing is left.
    """
    found = events if isinstance(events, Mapping) else histories(events)
    counts: Counter[Item] = Counter(event.item for history in found.values() for event in history)
    items = [item for item, count in counts.most_common() if count >= least]
    kept = set(items)
    known: list[list[Event]] = [[event for event in history if event.item in kept] for history in found.values()]
    known = [history for history in known if history]
    if len(items) < 2:
        raise EncoderError(f"there are {len(items)} items with {least} events or more: nothing to learn from")
    return items, known
