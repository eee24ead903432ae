"""verify finds every way in which the promise can be broken, and nothing where it holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embeddb.encoders import Hashing, Vectors, embed_documents
from embeddb.queue import prepare, targets
from embeddb.queue.verify import verify
from tests.catalog.application import Database, queued, register, spec

DIM = 16
ENCODER = Hashing(dim=DIM)


@pytest.fixture
def embedded(db: Database) -> Database:
    """Four rows as they should be, the fourth blank; a fifth that is pending."""
    db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, body text, embedding vector(16))")
    register(db, spec(dim=DIM, encoder=dict(ENCODER.config)))
    for key, title in enumerate(["one", "two words", "three", None], start=1):
        db.execute("INSERT INTO articles (id, title, embedding) VALUES (%s, %s, %s)", [key, title, vector(title)])
    db.execute("INSERT INTO articles (id, title) VALUES (5, 'pending')")
    prepare(db)
    return db


def vector(title: str | None) -> str | None:
    """In pgvector's text form."""
    return None if title is None else json.dumps(embed_documents(ENCODER, [title])[0].tolist())


def found(db: Database, **options: object) -> list[tuple[str | None, str]]:
    [target] = targets(db)
    return [(violation.key, violation.kind) for violation in verify(db, target, ENCODER, **options)]  # type: ignore[arg-type]


def unseen(db: Database, statement: str) -> None:
    """As if triggers had been off."""
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute(statement)


def test_nothing_where_the_promise_holds(embedded: Database) -> None:
    seen: list[int] = []
    assert found(embedded, batch=2, progress=seen.append) == []
    assert seen == [2, 4, 5]
    # Blank beyond what SQL calls blank.
    unseen(embedded, "INSERT INTO articles (id, title) VALUES (6, U&'\\00A0\\200B')")
    assert found(embedded) == []


BROKEN = {
    "missing": "UPDATE articles SET embedding = NULL WHERE id = 2",
    "stale": "UPDATE articles SET title = 'other' WHERE id = 2",
    "not blank": "UPDATE articles SET title = U&'\\00A0' WHERE id = 2",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_promise_is_found_unless_something_is_pending(embedded: Database, kind: str) -> None:
    unseen(embedded, BROKEN[kind])
    assert found(embedded) == [("2", kind)]
    assert found(embedded, sample=100) == [("2", kind)]
    embedded.execute("INSERT INTO embeddb.job (embedding, keys) SELECT id, '[99, 2]' FROM embeddb.embedding")
    assert found(embedded) == []
    embedded.execute(
        "TRUNCATE embeddb.job; INSERT INTO embeddb.failure SELECT id, '2', 'read', '', 1 FROM embeddb.embedding"
    )
    assert found(embedded) == [("5", "missing")]


def test_without_an_encoder_only_the_comparison_is_left_out(embedded: Database) -> None:
    unseen(
        embedded, "UPDATE articles SET title = 'other' WHERE id = 1; UPDATE articles SET embedding = NULL WHERE id = 2"
    )
    [target] = targets(embedded)
    assert [violation.kind for violation in verify(embedded, target, None)] == ["missing"]


def test_orphans_and_triggers(embedded: Database) -> None:
    embedded.execute("INSERT INTO embeddb.failure SELECT id, '77', 'read', '', 1 FROM embeddb.embedding")
    assert found(embedded) == [("77", "orphan")]
    assert embedded.execute("SELECT embeddb.sweep(id) FROM embeddb.embedding").fetchall() == [(1,)]
    embedded.execute("ALTER TABLE articles DISABLE TRIGGER embeddb_embedding_update")
    [target] = targets(embedded)
    [violation] = verify(embedded, target, None)
    assert violation.kind == "setup"
    assert "embeddb.refresh" in str(violation)


def test_a_row_that_the_encoder_has_no_vector_for_may_have_none(embedded: Database) -> None:
    class Ignorant(Hashing):
        def encode_documents(self, inputs: object) -> Vectors:
            return np.full((len(inputs), DIM), np.nan, np.float32)  # type: ignore[arg-type]

    [target] = targets(embedded)
    assert {violation.kind for violation in verify(embedded, target, Ignorant(dim=DIM))} == {"stale"}


def test_composite_keys_are_paged_in_order(db: Database) -> None:
    db.execute("CREATE TABLE t (a text, b int, title text, body text, embedding vector(16), PRIMARY KEY (a, b))")
    register(db, spec("t", dim=DIM, encoder=dict(ENCODER.config)))
    unseen(db, "INSERT INTO t (a, b, title) SELECT 'x' || i % 3, i, 'text' FROM generate_series(1, 20) i")
    prepare(db)
    keys = [key for key, _ in found(db, batch=3)]
    assert len({*keys}) == len(keys) == 20
    assert queued(db) == []
