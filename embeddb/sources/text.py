"""The text of a row: its source columns, joined or put in a template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import Formatter
from typing import Final

from embeddb.errors import SourceError

# Whitespace in Unicode's sense, and what has no width: soft hyphens, joiners, direction marks, the BOM.
_VISIBLE: Final = re.compile(r"[^\s\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def compose(values: Sequence[str | None], sources: Sequence[str], template: str | None = None) -> str | None:
    """The text to embed, or None where every source is NULL or blank.

    ``values`` are those of ``sources``, in order. Without a template the values that are not blank are joined by
    a newline, each as it is; in a template, which names sources as ``{name}``, NULL becomes nothing. Raises
    SourceError, naming the source, for a value that is not text or that Postgres cannot hold as text.
    """
    texts = {source: _read(source, value) for source, value in zip(sources, values, strict=True)}
    present = [text for text in texts.values() if _VISIBLE.search(text)]
    if not present:
        return None
    if template is None:
        return "\n".join(present)
    return "".join(literal + (texts[name] if name else "") for literal, name in _parts(template))


def _read(source: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SourceError(f"source {source!r} is {type(value).__name__}, not text: embed a text column")
    if "\x00" in value:
        raise SourceError(f"source {source!r} holds a NUL character, which Postgres text cannot: remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise SourceError(
                f"source {source!r} is not valid Unicode: a lone surrogate at character {error.start}"
            ) from None
    return value


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Of a template that ``spec.check_template`` has accepted: literal text, then a source's name or None."""
    return tuple((literal, name) for literal, name, _, _ in Formatter().parse(template))
