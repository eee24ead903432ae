"""Every Python block of the README and of the guides runs, each document in one namespace and one database."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = document.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"document_{document.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses and mappers look names up
    for match in BLOCK.finditer(source):
        line = source.count("\n", 0, match.start(1))
        exec(compile("\n" * line + match[1], str(document), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    for value in module.__dict__.values():
        if isinstance(value, Engine):
            value.dispose()


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    missing = []
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append((path, anchor))
    assert missing == []


def anchors(document: Path) -> set[str]:
    """What may stand after ``#``: a heading in lower case, without its punctuation, with hyphens for spaces."""
    headings = HEADING.findall(document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
