"""The words of a text, by a definition short enough to be repeated in SQL."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from typing import Final

_ASCII: Final = re.compile(r"[a-z0-9]+")


def tokens(text: str) -> list[str]:
    """The words of ``fold(text)``: its longest runs of letters, marks and numbers.

    That is, of characters whose Unicode general category begins with L, M or N (``word_ranges``). Everything else
    parts words: spaces, punctuation, apostrophes, underscores, symbols, controls, and what Python's Unicode
    version does not know. A script that is written without spaces gives one run for each stretch of it.
    """
    folded = fold(text)
    return (_ASCII if folded.isascii() else _pattern()).findall(folded)


def fold(text: str) -> str:
    """The text in NFKC, then case folded, once each and in this order (Unicode Standard, 3.13 and annex 15)."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


@lru_cache(maxsize=1)
def word_ranges() -> tuple[tuple[int, int], ...]:
    """The code points that words are made of, as (first, last), ascending."""
    ranges: list[tuple[int, int]] = []
    for point in range(sys.maxunicode + 1):
        if unicodedata.category(chr(point))[0] in "LMN":
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1] = (ranges[-1][0], point)
            else:
                ranges.append((point, point))
    return tuple(ranges)


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    members = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in word_ranges())
    return re.compile(f"[{members}]+")
