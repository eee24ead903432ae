"""Operations as Python source: calls as a careful colleague would write them, within 88 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: What ruff and black allow a line, less the four columns that Alembic indents it by.
_WIDTH: Final = 88 - 4


def call(name: str, /, *positional: Any, **keywords: Any) -> str:
    """``name("a", b="c")`` on one line where it fits, else an argument a line. Keywords of None are left out."""
    arguments = [literal(value) for value in positional]
    arguments += [f"{key}={literal(value)}" for key, value in keywords.items() if value is not None]
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return line
    wide = [literal(value, 4) for value in positional]
    wide += [f"{key}={literal(value, 4, len(key) + 1)}" for key, value in keywords.items() if value is not None]
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in wide) + ")"


class Source(str):
    """Python source that stands for itself."""


def literal(value: Any, indent: int = 0, before: int = 0) -> str:
    """A value as source: strings in double quotes, and what does not fit into its line with an item a line.

    ``indent``: of the line that it begins in. ``before``: characters that stand before it there.
    """
    if isinstance(value, Source):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        keys = [f"{literal(key)}: " for key in value]
        left, right, items = "{", "}", list(zip(keys, value.values(), strict=True))
    elif isinstance(value, Sequence):
        left, right, items = "[", "]", [("", item) for item in value]
    else:
        return repr(value)
    line = left + ", ".join(key + literal(item) for key, item in items) + right
    # One more for the comma that follows it. What has lines of its own within has them here too.
    if not items or ("\n" not in line and indent + before + len(line) + 1 <= _WIDTH):
        return line
    inner = indent + 4
    lines = [f"{' ' * inner}{key}{literal(item, inner, len(key))},\n" for key, item in items]
    return f"{left}\n{''.join(lines)}{' ' * indent}{right}"


def _string(value: str) -> str:
    """In double quotes, unless that would take more backslashes: as ruff and black have it."""
    within = repr('"' + value)[2:-1]  # as repr has it between single quotes
    if value.count('"') > value.count("'"):
        return f"'{within}'"
    return '"' + within.replace("\\'", "'").replace('"', '\\"') + '"'
