"""What a user did: items at times, with weights; and rows of a table as one such history a user."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from embeddb.errors import SourceError

Item = str | int


class Event(NamedTuple):
    """One item of a history. ``at``: seconds, on any clock that all events share; ``weight``: how much it counts."""

    item: Item
    at: float = 0.0
    weight: float = 1.0


History = list[Event]


def seconds(at: date | float) -> float:
    """A time as seconds since 1970; a datetime without a zone is taken as UTC, a date as its beginning."""
    if isinstance(at, datetime):
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if isinstance(at, date):
        return datetime(at.year, at.month, at.day, tzinfo=UTC).timestamp()
    return float(at)


def histories(rows: Iterable[tuple[Any, ...]]) -> dict[Hashable, History]:
    """Each user's events in order of time; those of one time stay in the order of their rows.

    Rows are (user, item), (user, item, time) or (user, item, time, weight); a time is a datetime, a date or seconds.
    Raises SourceError, naming the row, for one of another kind.
    """
    found: dict[Hashable, History] = {}
    for position, row in enumerate(rows):
        user, *rest = row
        found.setdefault(user, []).append(read_event(tuple(rest), position))
    for history in found.values():
        history.sort(key=lambda event: event.at)
    return found


def read_event(value: object, position: int = 0) -> Event:
    """An event from (item, time, weight), the last two of which may be absent, or from a bare item."""
    item, *rest = (value if isinstance(value, tuple) else (value,)) or (None,)
    # A bool is an int in Python, but no key of a table.
    if not isinstance(item, str | int) or isinstance(item, bool):
        raise SourceError(f"event {position}: an item is text or an integer, not {type(item).__name__}")
    try:
        at = seconds(rest[0]) if rest else 0.0
        weight = float(rest[1]) if len(rest) > 1 else 1.0
    except (TypeError, ValueError) as error:
        raise SourceError(f"event {position} of item {item!r}: its time or weight is no number: {error}") from None
    if len(rest) > 2:
        raise SourceError(f"event {position}: (item, time, weight) is at most three values, not {len(rest) + 1}")
    # NaN and infinities, too, are what no order and no sum survives.
    if not (abs(at) < 1e18 and abs(weight) < 1e18):
        raise SourceError(f"event {position} of item {item!r}: its time {at} or weight {weight} is out of range")
    return Event(item, at, weight)
