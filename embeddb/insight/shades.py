"""Numbers and times as groups of a map: ranges that hold about as many rows each, from dark to light."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

#: Of viridis, which keeps its order in grey and for the colour-blind (van der Walt and Smith 2015).
SHADES: Final = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58")
MISSING: Final = "NULL"
_GREY: Final = "#9498a0"


def shaded(values: Sequence[Any], most: int) -> tuple[list[str], dict[str, str]] | None:
    """Each value's range, by the name that a legend gives it, and the ranges with their colours, the lowest first.

    None where values are no numbers or times throughout (NULLs apart), or ``most`` colours suffice for all of them.
    """
    known = [value for value in values if value is not None]
    if not all(_is_measured(value) for value in known) or len(set(known)) <= most:
        return None
    # The first value of each range; equal values are never parted.
    starts: list[Any] = []
    taken = size = len(known) / len(SHADES)
    for value, count in sorted(Counter(known).items()):
        if taken >= size:
            starts.append(value)
            taken = 0
        taken += count
    places = [None if value is None else bisect_right(starts, value) - 1 for value in values]
    held: dict[int, list[Any]] = {}
    for value, place in zip(values, places, strict=True):
        if place is not None:
            held.setdefault(place, []).append(value)
    names = {place: f"{_said(min(own))} … {_said(max(own))}" for place, own in sorted(held.items())}
    legend = {name: SHADES[place * (len(SHADES) - 1) // max(1, len(starts) - 1)] for place, name in names.items()}
    if len(known) < len(values):
        legend[MISSING] = _GREY
    return [MISSING if place is None else names[place] for place in places], legend


def _is_measured(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, date) or (isinstance(value, int | float | Decimal) and value == value)


def _said(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return value.isoformat() if isinstance(value, date) else str(value) if isinstance(value, int) else f"{value:.4g}"
