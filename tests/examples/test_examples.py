"""Every example runs, and is better than the control that it measures beside itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from embeddb.local import LocalPostgres

FOLDER: Final = Path(__file__).parents[2] / "examples"
SCRIPTS: Final = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))

#: For each figure the least that it may be, and by how much it must be better than its control.
LEAST: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "classification": {"texts in their topic": (0.62, 0.3)},
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


def test_every_example_is_in_the_recipes() -> None:
    recipes = (FOLDER.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"../examples/{name}.py" not in recipes] == []
