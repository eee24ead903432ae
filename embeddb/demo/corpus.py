"""The demo's texts, written for it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TypedDict


class Text(TypedDict):
    """One text of the corpus."""

    title: str
    topic: str
    year: int
    body: str


def read_corpus(limit: int | None = None) -> list[Text]:
    """The first ``limit`` texts, or all of them."""
    lines = files("embeddb.demo").joinpath("corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:limit]]
