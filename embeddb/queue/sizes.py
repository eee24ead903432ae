"""How large rows' sources are, asked before they are read: a batch of recordings may be more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg import Connection

from embeddb.queue.target import QUERIES, Target

#: What the sources of rows that are read at once may take, together, in bytes; a larger row is read alone.
PORTION: Final = 64 * 2**20
#: Rows with more are not read: Postgres cannot hash them, for their text (two digits a byte) would exceed its 1 GB.
MOST: Final = 500 * 2**20
#: A table whose values outside of its rows take less is not asked: compressed as they are, they fit.
_SMALL: Final = 16 * 2**20


def measure(connection: Connection[Any], target: Target, keys: Sequence[str]) -> dict[str, int]:
    """The bytes that the sources of these keys' rows take, without reading them; empty where all are small."""
    [large] = connection.execute(QUERIES["is_large"], {"embedding": target.id, "small": _SMALL}).fetchone() or [False]
    if not large:
        return {}
    rows = connection.execute(target.statement("measure"), {"keys": list(keys)})
    return {keys[place - 1]: size for place, size in rows}


def portions(keys: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The keys in their order, cut so that each portion's sources take at most PORTION bytes, or it is one row."""
    portion: list[str] = []
    taken = 0
    for key in keys:
        size = sizes.get(key, 0)
        if portion and taken + size > PORTION:
            yield portion
            portion, taken = [], 0
        portion.append(key)
        taken += size
    if portion:
        yield portion
