"""``embeddb advise`` as a command, and the revision that it writes: up, nothing left to generate, and down again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typer.testing import CliRunner

from embeddb import HNSW, IVFFlat, Vector, bulk_load, embedding_column
from embeddb.cli.main import build
from embeddb.encoders import Hashing
from embeddb.errors import DeclarationError
from embeddb.metrics import Storage
from embeddb.migrate.proposal import Proposal, body, write
from embeddb.spec import VectorIndex
from tests.insight.vectors import decaying
from tests.migrate.project import Project, differences

ROWS, DIM = 600, 256
KEPT: list[type] = []


def models(storage: Storage = "vector", index: VectorIndex | None = HNSW()) -> type[DeclarativeBase]:  # noqa: B008
    """A table with two embeddings, one as it is declared here."""

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        kind: Mapped[str] = mapped_column(index=True)
        embedding: Mapped[Vector | None] = embedding_column(
            "body", encoder=Hashing(dim=DIM), storage=storage, index=index
        )
        other: Mapped[Vector | None] = embedding_column(
            "kind", encoder=Hashing(dim=16), metric="l2", index=IVFFlat(lists=1)
        )

    KEPT.append(Doc)  # a registry holds its classes weakly
    return Base


@dataclass
class Place:
    project: Project
    engine: Engine

    @property
    def config(self) -> Path:
        return self.project.folder / "alembic.ini"

    def advise(self, *arguments: str) -> Any:
        address = self.engine.url.render_as_string(hide_password=False)
        given = ["advise", "docs.embedding", "--queries", "10", "--url", address, *arguments]
        return CliRunner().invoke(build(), given, env={"COLUMNS": "200"})

    def declares(self, storage: Storage, index: VectorIndex | None) -> None:
        """The database agrees with code that does: nothing would be generated."""
        assert differences(self.engine, models(storage, index).metadata) == []

    def indexes(self) -> set[str]:
        with self.engine.connect() as connection:
            names = connection.scalars(text("SELECT indexname FROM pg_indexes WHERE tablename = 'docs'"))
            return {name for name in names if "hnsw" in name or "ivfflat" in name}


@pytest.fixture
def place(engine18: Engine, tmp_path: Path) -> Place:
    base = models()
    project = Project(tmp_path, engine18, base.metadata)
    project.revise("docs")
    project.upgrade()
    with engine18.begin() as connection:
        columns = {
            "id": np.arange(ROWS),
            "body": [f"body {n}" for n in range(ROWS)],
            "kind": ["odd" if n % 2 else "even" for n in range(ROWS)],
            "embedding": decaying(ROWS, DIM),
        }
        bulk_load(connection, base.metadata.tables["docs"], columns)
    return Place(project, engine18)


def test_a_revision_is_written_goes_up_and_comes_down(place: Place) -> None:
    said = place.advise("--rows", "2000000", "--memory", "64GB", "--apply", "--config", str(place.config))
    assert said.exit_code == 0, (said.output, said.exception)
    assert 'embedding_column(..., index=HNSW(cast="halfvec"))' in said.output
    [_, written] = place.project.scripts()
    source = Path(written.path).read_text()
    assert "import embeddb\n" in source
    assert re.search(r"op.execute\(\"SET maintenance_work_mem = '\d+MB'\"\)", source)
    assert "op.alter_embedding(" in source
    assert 'index=embeddb.HNSW(cast="halfvec"),\n        existing_index=embeddb.HNSW(),' in source
    assert "other" not in source
    assert "kind" not in source
    place.project.upgrade()
    place.declares("vector", HNSW(cast="halfvec"))
    place.project.downgrade()
    place.declares("vector", HNSW())


@pytest.mark.parametrize(
    ("storage", "index"),
    [
        ("halfvec", HNSW(m=24, ef_construction=200)),
        ("halfvec", IVFFlat(lists=5)),
        ("vector", HNSW(cast="binary")),
        ("vector", HNSW(prefix=64)),
        ("vector", None),
    ],
    ids=str,
)
def test_whatever_is_proposed_is_what_a_declaration_would_make(
    place: Place, storage: Storage, index: VectorIndex | None
) -> None:
    wanted = Proposal("docs", "embedding", DIM, "cosine", storage, index)
    with place.engine.connect() as connection, connection.begin():
        made = body(connection, wanted)
        assert made is not None
        write(connection, made, place.config, "as proposed")
    before = place.indexes()
    place.project.upgrade()
    place.declares(storage, index)
    with place.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(embedding) FROM docs")) == ROWS
        assert body(connection, wanted) is None
    place.project.downgrade()
    place.declares("vector", HNSW())
    assert place.indexes() == before


def test_a_column_that_nobody_registered(engine18: Engine) -> None:
    with engine18.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Their own"'))
        connection.execute(text('CREATE TABLE "Their own"."Docs" (id int PRIMARY KEY, "E" vector(32))'))
        connection.execute(text('CREATE INDEX theirs ON "Their own"."Docs" USING ivfflat ("E" vector_l2_ops)'))
        wanted = Proposal("Docs", "E", 32, "l2", "halfvec", HNSW(), "Their own")
        made = body(connection, wanted)
    assert made is not None
    assert 'op.drop_vector_index("theirs", schema="Their own", concurrently=True)' in made.upgrades
    assert "embeddb.HALFVEC(32)" in made.upgrades
    assert "embedding(" not in made.upgrades
    assert made.imports == "import embeddb"


def test_where_a_revision_cannot_be(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = place.advise("--config", str(tmp_path / "none.ini"), "--apply")
    assert missing.exit_code == 2
    assert "there is no file" in missing.output
    (folder := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    small = place.advise("--apply")
    assert small.exit_code == 0, (small.output, small.exception)
    assert "The index that is there stays" in small.output
    assert "docs.embedding is so already" in small.output
    printed = place.advise("--apply", "--rows", "2000000", "--memory", "64GB")
    assert printed.exit_code == 0, (printed.output, printed.exception)
    assert "There is no alembic.ini here" in printed.output
    assert "def downgrade():\n    # ###" in printed.output
    assert 'op.replace_vector_index(\n        "ix_docs_embedding_hnsw",' in printed.output
    assert 'existing={"opclass": "vector_cosine_ops", "expression": None},' in printed.output
    with place.engine.connect() as connection:
        wanted = Proposal("docs", "embedding", DIM, "cosine", "vector", None)
        made = body(connection, wanted)
        assert made is not None
        write(connection, made, place.config, "not run yet")
        with pytest.raises(DeclarationError, match="run alembic upgrade head first"):
            write(connection, made, place.config, "another")


def test_trials_are_shown_and_drawn(place: Place, tmp_path: Path) -> None:
    picture = tmp_path / "trials.png"
    said = place.advise("--rows", "200000", "--sample", "200", "--try", "--plot", str(picture))
    assert said.exit_code == 0, (said.output, said.exception)
    assert "tried: size" in said.output
    assert said.output.count("→") == 1
    assert "\nDeclare " in said.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = place.advise("--plot", str(picture))
    assert refused.exit_code == 2
    assert "give both" in refused.output
