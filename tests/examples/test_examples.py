"""Every example runs, and is better than the control that it measures beside itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from embeddb.local import LocalPostgres

RECIPES: Final = Path(__file__).parents[2] / "docs" / "recipes.md"
BLOCK: Final = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLE: Final = re.compile(r"\(\.\./examples/(\w+\.py)\)")
FOLDER: Final = Path(__file__).parents[2] / "examples"
SCRIPTS: Final = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))

#: For each figure the least that it may be, and by how much it must be better than its control.
LEAST: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "anomalies": {"odd lines among the first ten": (0.7, 0.3)},
    "chatbot": {
        "answers from the right document": (0.6, 0.3),
        "right document quoted": (0.75, 0.15),
        "refused where there is no answer": (1.0, 0.25),
    },
    "classification": {"texts in their topic": (0.62, 0.3)},
    "cross_language": {
        "words translated that no dictionary had": (0.7, 0.5),
        "German text among the first three": (0.6, 0.4),
    },
    "entity_linking": {"names tied right": (0.85, 0.3)},
    "estimates": {"variance of prices explained": (0.45, 0.15)},
    "faces": {"people named, strangers refused": (0.7, 0.1)},
    "fingerprints": {
        "pairs of presses told apart (1 - EER)": (0.85, 0.25),
        "phones that do what they should": (0.75, 0.2),
    },
    "image_search": {
        "of the five found by a caption, right": (0.6, 0.4),
        "of the five found by a picture, right": (0.55, 0.25),
    },
    "iris": {"people known again": (0.9, 0.4), "strangers refused": (0.9, 0.9)},
    "limits_dimensions": {"of the 10 nearest, found by 96 dimensions": (0.75, 0.2)},
    "limits_meaning": {"telling words from the right half": (0.8, 0.2)},
    "limits_memory": {"index saved by bits": (0.65, 0.2), "recall by bits, reranked": (0.95, 0.2)},
    "near_duplicates": {"pairs, F1": (0.9, 0.5)},
    "objects_by_example": {"objects found, with their place": (0.6, 0.1)},
    "perceptual_hashes": {"copies found, F1": (0.9, 0.9)},
    "recommendation": {
        "last order among five offered": (0.5, 0.25),
        "customers alike who want the same": (0.7, 0.4),
    },
    "sentiment": {"sentences judged right": (0.65, 0.1)},
    "speaker_recognition": {"pairs of calls told apart (1 - EER)": (0.75, 0.15), "callers named": (0.35, 0.2)},
    "topics": {"texts in a group of their topic": (0.6, 0.25)},
    "voice_commands": {"commands understood": (0.85, 0.2), "new commands understood": (0.7, 0.15)},
}


def load(name: str) -> Any:
    """The example as a module of its own, as if its folder were the program's."""
    specification = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where mappings look their annotations up
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_example(
    name: str, server18: LocalPostgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    figures = load(name).main(server18.url)
    assert capsys.readouterr().out, "an example shows what it found"
    assert {figure.what for figure in figures} == set(LEAST[name]), "each figure has its bounds"
    for figure in figures:
        least, better = LEAST[name][figure.what]
        assert figure.value >= least, figure
        assert figure.value >= figure.control + better, figure


def test_an_example_is_a_program(server18: LocalPostgres) -> None:
    command = [sys.executable, str(FOLDER / "anomalies.py"), "--url", server18.url]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "odd lines among the first ten: 0." in told.splitlines()[-1]
    with psycopg.connect(server18.dsn) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'embeddb\\_example%'").fetchall()
    assert left == [], "an example leaves no database behind"


def test_every_example_is_in_the_recipes() -> None:
    recipes = RECIPES.read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"../examples/{name}.py" not in recipes] == []


def test_recipes_quote_their_examples() -> None:
    quoted = 0
    for section in re.split("^##+ ", RECIPES.read_text(encoding="utf-8"), flags=re.MULTILINE):
        for block in BLOCK.findall(section):
            [name] = EXAMPLE.findall(section)
            lines = {line.strip() for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()}
            assert [line for line in block.splitlines() if line.strip() not in lines] == [], name
            quoted += 1
    assert quoted >= len(SCRIPTS) - 1
