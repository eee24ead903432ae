"""Which of the declared roots this process reads, and where they are here: as its environment says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Final

from embeddb.errors import SourceError
from embeddb.sources.files import Files, is_below, is_remote

#: A JSON list of the roots that may be read, or an object from declared roots to what holds their files here.
VARIABLE: Final = "EMBEDDB_FILES"


def here(declared: Files) -> Files:
    """The declared policy within what ``EMBEDDB_FILES`` allows: all of it where that is not set, and never more.

    A list keeps the declared roots that are, or lie below, one of its own; and of a declared URL that is wider its own
    narrower one. An object keeps those that it names, and says where each is. Raises SourceError where none is left.
    """
    setting = os.environ.get(VARIABLE)
    if not setting:
        return declared
    allowed = _read(setting)
    if isinstance(allowed, dict):
        roots = [allowed[root] for root in declared.roots if root in allowed]
    else:
        roots = [common for root in declared.roots for common in _common(root, allowed)]
    if not roots:
        raise SourceError(f"{VARIABLE} allows none of the roots that are declared, {', '.join(declared.roots)}")
    return declared.with_roots(*dict.fromkeys(roots))


def _common(root: str, allowed: list[str]) -> Iterator[str]:
    for other in allowed:
        if is_below(root, other):
            yield root
        elif is_remote(root) and is_below(other, root):
            yield other


def _read(setting: str) -> list[str] | dict[str, str]:
    try:
        value: Any = json.loads(setting)
    except ValueError as error:
        raise SourceError(f"{VARIABLE} is no JSON: {error}") from None
    if isinstance(value, dict) and all(isinstance(root, str) and root for root in value.values()):
        return value
    if isinstance(value, list) and all(isinstance(root, str) and root for root in value):
        return value
    raise SourceError(f'{VARIABLE} is a JSON list of roots, or an object: {{"declared root": "root here"}}')
