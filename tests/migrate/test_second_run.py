"""After a revision that autogenerate wrote, and after ``create_all``, the next one has nothing to do."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import Computed, Engine, Integer, Text, Uuid, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

import embeddb
from embeddb import HNSW, Hashing, IVFFlat, embedding_column
from embeddb.errors import DeclarationError
from tests.migrate.project import Project, differences

SCHEMAS = (None, "library", "Odd Names")
SOURCES = (("title",), ("title", "body"), ("body", "more_stuff", "title"), ("lowered",))
WRITINGS = tuple(itertools.product(("inline", "queued"), ("raise", "queue"), ("keep", "clear")))
INDEXES = {
    "none": None,
    "hnsw": HNSW(),
    "options": HNSW(m=8, ef_construction=40),
    "halfvec": HNSW(cast="halfvec"),
    "binary": HNSW(cast="binary"),
    "prefix": HNSW(prefix=8),
    "prefix_halfvec": HNSW(prefix=8, cast="halfvec"),
    "prefix_binary": HNSW(prefix=8, cast="binary"),
    "ivfflat": IVFFlat(lists=4),
    "ivfflat_halfvec": IVFFlat(lists=4, cast="halfvec"),
    "ivfflat_prefix": IVFFlat(lists=4, prefix=8),
}


def key(number: int) -> dict[str, Any]:
    """A primary key: a number, a UUID, or two columns."""
    if number % 3 == 0:
        return {"id": mapped_column(Integer, primary_key=True)}
    if number % 3 == 1:
        return {"id": mapped_column(Uuid, primary_key=True, default=uuid.uuid4)}
    return {"region": mapped_column(Text, primary_key=True), "number": mapped_column("Nr.", Integer, primary_key=True)}


def every_table() -> type[DeclarativeBase]:
    """A table for every metric, storage and index that go together; what else a declaration says, in turn."""

    class Base(DeclarativeBase):
        kept: ClassVar[list[type]] = []  # nobody else holds classes that have no name

    combinations = itertools.product(("cosine", "l2", "inner_product", "l1"), ("vector", "halfvec"), INDEXES.items())
    for number, (metric, storage, (kind, index)) in enumerate(combinations):
        sources = SOURCES[number % len(SOURCES)]
        mode, on_error, on_update = WRITINGS[number % len(WRITINGS)]
        if sources == ("lowered",):
            mode, on_update = "queued", "keep"  # only the database knows a generated column
        template = " – ".join("{" + source + "}" for source in sources) if number % 3 == 0 else None
        try:
            column = embedding_column(
                *sources,
                encoder=Hashing(16),
                metric=metric,  # type: ignore[arg-type]
                storage=storage,  # type: ignore[arg-type]
                index=index,
                mode=mode,  # type: ignore[arg-type]
                on_error=on_error,  # type: ignore[arg-type]
                on_update=on_update,  # type: ignore[arg-type]
                template=template,
            )
        except DeclarationError:
            continue  # pgvector has no such index
        attributes: dict[str, Any] = {
            "__tablename__": f"{metric}_{storage}_{kind}",
            "__table_args__": {"schema": SCHEMAS[number % 5 % len(SCHEMAS)]},
            "title": mapped_column(Text),
            "body": mapped_column(Text, nullable=True),
            "more_stuff": mapped_column("more stuff", Text),
            "lowered": mapped_column(Text, Computed("lower(title)", persisted=True)),
            "embedding": column,
        }
        Base.kept.append(type(f"Table{number}", (Base,), {**attributes, **key(number)}))
    return Base


@pytest.fixture(scope="module")
def every() -> type[DeclarativeBase]:
    return every_table()


def make_schemas(engine: Engine) -> None:
    with engine.begin() as connection:
        for schema in filter(None, SCHEMAS):
            connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')


def test_every_declaration_travels_through_a_revision(
    engine: Engine, tmp_path: Path, every: type[DeclarativeBase]
) -> None:
    make_schemas(engine)
    project = Project(tmp_path, engine, every.metadata, include_schemas=True)
    project.revise("everything")
    project.upgrade()
    project.check()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM embeddb.embeddings")) == len(every.metadata.tables)
        assert connection.scalars(text("SELECT embeddb.problems(id) FROM embeddb.embedding")).all() == []


def test_tables_of_create_all_and_register_are_as_declared(engine: Engine, every: type[DeclarativeBase]) -> None:
    make_schemas(engine)
    every.metadata.create_all(engine)
    embeddb.register(engine, every, install=True)
    assert differences(engine, every.metadata, include_schemas=True) == []
