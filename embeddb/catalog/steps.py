"""The catalog's version steps, frozen by hash, and the functions and views that are made anew at every upgrade."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from psycopg import sql

#: Stands in the files for the schema that pgvector is in; an extension script knows it by the same name.
VECTOR_SCHEMA: Final = "@extschema:vector@"

# A statement ends at a semicolon outside of quotes, dollar quotes and comments.
_TOKEN: Final = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$).*?\1|;", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One version step: ``0001_tables.sql`` is step 1, ``tables``. ``hash``: SHA-256 of its text."""

    number: int
    name: str
    text: str

    @property
    def hash(self) -> str:
        """Hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def _files(kind: str) -> list[Traversable]:
    folder = files("embeddb.catalog") / "sql" / kind
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)


@cache
def steps() -> tuple[Step, ...]:
    """All steps, in order; their numbers go from 1 without a gap."""
    named = [(file.name.removesuffix(".sql").split("_", 1), file.read_text("utf-8")) for file in _files("steps")]
    return tuple(Step(int(number), name, text) for (number, name), text in named)


def record(step: Step) -> str:
    """The statement that notes a step as done."""
    values = sql.SQL("INSERT INTO embeddb.step (number, name, hash) VALUES ({}, {}, {})")
    return values.format(step.number, step.name, step.hash).as_string(None)


@cache
def frozen() -> dict[int, str]:
    """The published hash of each step by number, from ``steps/frozen.txt``."""
    text = (files("embeddb.catalog") / "sql" / "steps" / "frozen.txt").read_text("utf-8")
    return {int(number): digest for number, digest in (line.split() for line in text.splitlines())}


@cache
def current() -> tuple[str, ...]:
    """The files of functions, then those of views: safe to run over an older version of themselves."""
    return tuple(file.read_text("utf-8") for kind in ("functions", "views") for file in _files(kind))


def statements(text: str) -> Iterator[str]:
    """The single statements of a file, with the comments above each, without the semicolon."""
    start = 0
    for token in _TOKEN.finditer(text):
        if token.group() == ";":
            yield text[start : token.start()].strip()
            start = token.end()
