"""What autogenerate makes of a declaration that changed, there and back, with the vectors that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, Text, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import HNSW, Hashing, IVFFlat, Vector, embedding_column
from embeddb.encoders import OpenAI, SentenceTransformer
from embeddb.local import LocalPostgres
from tests.migrate.project import Project, differences, schema_of

VECTORS = "UPDATE {} SET {} = array_fill(0.5, ARRAY[16])::vector"
KEPT: list[type] = []


def notes(
    table: str = "notes",
    vector: str = "embedding",
    called: str = "title",
    kind: Any = Text,
    schema: str | None = None,
    **changes: Any,
) -> MetaData:
    """A table with one embedding, told otherwise."""

    class Base(DeclarativeBase):
        pass

    arguments: dict[str, Any] = {"encoder": Hashing(16), "index": HNSW(), "template": "{title}: {body}"} | changes
    sources = arguments.pop("sources", ("title", "body"))

    class Note(Base):
        __tablename__ = table
        __table_args__ = {"schema": schema}
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(called, kind)
        body: Mapped[str] = mapped_column(Text)
        embedding: Mapped[Vector | None] = embedding_column(*sources, name=vector, **arguments)

    KEPT.append(Note)
    return Base.metadata


@pytest.fixture
def project(engine18: Engine, tmp_path: Path) -> Project:
    project = Project(tmp_path, engine18, notes())
    project.revise("first")
    project.upgrade()
    project.check()
    with engine18.begin() as connection:
        connection.exec_driver_sql("INSERT INTO notes (title, body) VALUES ('a', 'b')")
        connection.exec_driver_sql(VECTORS.format("notes", "embedding"))
        connection.exec_driver_sql("DELETE FROM embeddb.job")
    return project


CHANGES: dict[str, tuple[dict[str, Any], str, int]] = {
    "metric": ({"metric": "l2"}, 'op.alter_embedding("notes", "embedding", metric="l2", existing_metric="cosine")', 0),
    "mode": ({"mode": "queued"}, 'mode="queued", existing_mode="inline"', 0),
    "on_update": ({"on_update": "clear"}, 'on_update="clear"', 0),
    "template": ({"template": "{body} {title}"}, 'template="{body} {title}"', 1),
    "no template": ({"template": None}, "template=None", 1),
    "sources": ({"sources": ("body",), "template": "{body}"}, 'sources=["body"]', 1),
    "index": ({"index": HNSW(m=8)}, "index=embeddb.HNSW(m=8)", 0),
    "index method": ({"index": IVFFlat(lists=2)}, "existing_index=embeddb.HNSW()", 0),
    "no index": ({"index": None}, "index=None", 0),
    "type of a source": ({"kind": String(200)}, 'op.disarm_embedding("notes", "embedding")', 0),
    "name of a source": ({"called": "headline", "template": "{title}: {body}"}, '"notes", "title", "headline"', 0),
    "name of the column": ({"vector": "meaning"}, '"embedding", "meaning"', 0),
    "names of both": ({"vector": "meaning", "called": "headline"}, '"title", "headline"', 0),
    "name of the table": ({"table": "remarks"}, '"notes", "remarks"', 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_travels_there_and_back(project: Project, server18: LocalPostgres, change: str) -> None:
    arguments, expected, queued = CHANGES[change]
    url = project.engine.url
    before = schema_of(server18, url)
    project.metadata = notes(**arguments)
    written = project.revise("second")
    assert expected in " ".join(written.split())
    project.upgrade()
    project.check()
    after = schema_of(server18, url)
    table, column = arguments.get("table", "notes"), arguments.get("vector", "embedding")
    with project.engine.connect() as connection:
        # Nothing was embedded anew, nor lost; what is to be embedded anew waits.
        assert connection.scalar(text(f"SELECT count({column}) FROM {table}")) == 1
        assert connection.scalar(text("SELECT count(*) FROM embeddb.job")) == queued
        assert connection.scalars(text("SELECT embeddb.problems(id) FROM embeddb.embedding")).all() == []
    project.downgrade()
    assert schema_of(server18, url) == before
    with project.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(embedding) FROM notes")) == 1
    project.upgrade()
    assert schema_of(server18, url) == after


def test_an_encoder_that_is_run_otherwise_is_altered(engine18: Engine, tmp_path: Path, server18: LocalPostgres) -> None:
    encoder = OpenAI("some-model", dim=16, batch_size=8)
    project = Project(tmp_path, engine18, notes(encoder=encoder))
    project.revise("first")
    project.upgrade()
    with engine18.begin() as connection:
        connection.exec_driver_sql("INSERT INTO notes (title, body) VALUES ('a', 'b')")
        connection.exec_driver_sql(VECTORS.format("notes", "embedding"))
        connection.exec_driver_sql("DELETE FROM embeddb.job")
    project.metadata = notes(encoder=replace(encoder, base_url="http://elsewhere/v1", batch_size=256))
    written = project.revise("elsewhere")
    assert "op.alter_embedding(" in written
    assert "expand" not in written
    project.upgrade()
    project.check()
    noted = text("SELECT encoder ->> 'base_url' FROM embeddb.embeddings")
    with engine18.connect() as connection:
        assert connection.scalar(noted) == "http://elsewhere/v1"
        assert connection.scalar(text("SELECT count(*) FROM embeddb.job")) == 0
    project.downgrade()
    with engine18.connect() as connection:
        assert connection.scalar(noted) is None
        assert connection.scalar(text("SELECT count(*) FROM embeddb.job")) == 0


def test_a_device_is_no_difference(engine18: Engine, tmp_path: Path) -> None:
    metadata = [notes(encoder=SentenceTransformer("not-here", device=device), dim=16) for device in (None, "cuda:1")]
    project = Project(tmp_path, engine18, metadata[0])
    project.revise("first")
    project.upgrade()
    assert differences(engine18, metadata[1]) == []


def test_dimensions_that_nobody_knows_are_told_in_a_line(engine18: Engine) -> None:
    metadata = notes(encoder=SentenceTransformer("not-here", local_files_only=True))
    with pytest.raises(CommandError, match=r"notes\.embedding: how many dimensions .* 'not-here'.*[^.]\. Say dim="):
        differences(engine18, metadata)


def test_a_declaration_that_is_gone(project: Project, server18: LocalPostgres) -> None:
    """The models say so: the column goes. Its way back has all that the embedding was."""
    before = schema_of(server18, project.engine.url)

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(Text)
        body: Mapped[str] = mapped_column(Text)

    project.metadata = Base.metadata
    assert 'op.drop_embedding("notes", "embedding")' in project.revise("gone")
    project.upgrade()
    project.check()
    project.downgrade()
    assert schema_of(server18, project.engine.url) == before


def test_a_table_that_is_gone(project: Project, server18: LocalPostgres) -> None:
    before = schema_of(server18, project.engine.url)
    project.metadata = MetaData()
    assert 'op.drop_embedding("notes", "embedding")' in project.revise("gone")
    project.upgrade()
    project.check()
    project.downgrade()
    assert schema_of(server18, project.engine.url) == before


def test_triggers_that_are_missing_or_disabled_are_made_again(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE notes DISABLE TRIGGER USER")
    assert 'op.refresh_embedding("notes", "embedding")' in project.revise("mend")
    project.upgrade()
    project.check()


def test_an_older_catalog_is_upgraded(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM embeddb.step WHERE number > 6")
    assert "op.upgrade_embeddb(" in project.revise("catalog")


def test_what_the_project_leaves_out_is_left_out(project: Project) -> None:
    project.config.attributes["include_object"] = lambda item, name, kind, reflected, other: name != "notes"
    project.metadata = notes(metric="l2")
    project.check()


def test_the_default_schema_may_be_named(project: Project) -> None:
    project.metadata = notes(schema="public")
    project.check()


def test_another_encoder_is_filled_beside_the_old_one_and_takes_its_place(project: Project) -> None:
    """Three revisions, each written once the one before has done its work."""
    engine = project.engine
    project.metadata = notes(encoder=Hashing(24))
    assert "op.expand_embedding(" in project.revise("expand")
    project.upgrade()
    project.check()  # it is being filled: nothing to do, and its column is nobody's to drop
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE notes SET embedding__next = array_fill(0.5, ARRAY[24])::vector")
        connection.exec_driver_sql("DELETE FROM embeddb.job")
    assert 'op.swap_embedding("notes", "embedding")' in project.revise("swap")
    project.upgrade()
    project.check()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT vector_dims(embedding) FROM notes")) == 24
    project.downgrade("-2")
    assert differences(engine, notes()) == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT vector_dims(embedding) FROM notes")) == 16


def test_there_is_no_way_back_past_a_change_that_is_over(project: Project) -> None:
    project.metadata = notes(encoder=Hashing(24))
    for message, prepare in (("expand", None), ("swap", "UPDATE notes SET embedding__next = array_fill(1, ARRAY[24])")):
        with project.engine.begin() as connection:
            if prepare is not None:
                connection.exec_driver_sql(prepare)
                connection.exec_driver_sql("DELETE FROM embeddb.job")
        project.revise(message)
        project.upgrade()
    with project.engine.begin() as connection:
        connection.exec_driver_sql("SELECT embeddb.contract('notes.embedding')")
    with pytest.raises(CommandError, match=r"notes\.embedding: its encoder is not being changed") as refused:
        project.downgrade()
    assert "SELECT" not in str(refused.value)


def test_renames_by_hand_are_followed(project: Project) -> None:
    """As a project writes them, without autogenerate: names of functions are what is left to do."""
    with project.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE notes RENAME TO remarks")
        connection.exec_driver_sql("ALTER TABLE remarks RENAME title TO headline")
    project.metadata = notes(table="remarks", called="headline")
    with project.engine.connect() as connection:
        rows = connection.scalar(text("SELECT count(embedding) FROM remarks"))
    written = project.revise("names")
    assert 'op.rename_vector_index("ix_notes_embedding_hnsw", "ix_remarks_embedding_hnsw")' in written
    assert "create_vector_index" not in written
    project.upgrade()
    project.check()
    with project.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(embedding) FROM remarks")) == rows == 1
        assert connection.scalar(text("SELECT count(*) FROM pg_proc WHERE proname = 'remarks_search'")) == 1


def test_other_databases_are_left_to_alembic(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/plain.db")
    plain = MetaData()
    Table("plain", plain, Column("id", Integer, primary_key=True))
    project = Project(tmp_path, engine, plain)
    assert "embeddb" not in project.revise("plain")
    project.upgrade()
    project.check()
    engine.dispose()
