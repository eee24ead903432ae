"""``CALL embeddb.drain``: the queue worked off by the database alone, to the same vectors and by the same rules."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from embeddb.encoders import embed_documents, word_store
from embeddb.encoders.word_store import Words
from embeddb.encoders.words import WordVectors
from embeddb.insql import install_transformer, install_words
from embeddb.queue import prepare, targets
from embeddb.queue.verify import verify
from embeddb.sources.text import compose
from embeddb.spec import EmbeddingSpec
from tests.catalog.application import Database, queued, register
from tests.insql.small_models import Models

DIM = 6
KNOWN = ("the", "cat", "sat", "mat")
CALL = "CALL embeddb.drain()"


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> WordVectors:
    """An encoder of four words: it has no embedding for a text with none of them."""
    folder: Path = tmp_path_factory.mktemp("words") / "four"
    vectors = np.random.default_rng(3).standard_normal((len(KNOWN), DIM)).astype(np.float32)
    word_store.write(folder, Words(list(KNOWN), vectors))
    return WordVectors(str(folder), weighting="mean")


@pytest.fixture
def drained(catalog: Engine, db: Database, words: WordVectors) -> Iterator[Database]:
    """The table ``notes`` with its embedding, whose encoder is in the database."""
    db.execute(f"CREATE TABLE notes (id int PRIMARY KEY, title text, body text, embedding vector({DIM}))")
    with catalog.begin() as connection:
        install_words(connection, words, name="four")
    register(db, notes(words))
    yield db
    db.execute(
        "DELETE FROM embeddb.encoder x WHERE NOT EXISTS (SELECT FROM embeddb.embedding e WHERE e.encoder = x.id)"
    )


def notes(words: WordVectors, **changes: Any) -> EmbeddingSpec:
    values: dict[str, Any] = {"table": "notes", "column": "embedding", "sources": ("title", "body"), "index": None}
    return EmbeddingSpec(**{**values, "encoder": words.config, "dim": DIM, "mode": "queued", **changes})


def vectors(db: Database, table: str = "notes") -> dict[int, Any]:
    rows = db.execute("SELECT id, embedding::text FROM " + table + " ORDER BY id").fetchall()
    return {key: None if said is None else np.array(json.loads(said)) for key, said in rows}


def failures(db: Database) -> list[Any]:
    return db.execute("SELECT key, step, error, attempts FROM embeddb.failure ORDER BY key").fetchall()


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00") | st.sampled_from("\u00a0\u200b\u2028\ufeff \t{}")
)


@given(given=st.tuples(st.none() | TEXT, st.none() | TEXT), template=st.none() | st.sampled_from(
    ["{title}: {body}", "{{{body}}} {title}}}{{", "\n{title}{title}{body}\\1"]))  # fmt: skip
@example(given=("\u00ad", None), template=None)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_text_of_a_row_is_that_of_python(db: Database, given: tuple[str | None, ...], template: str | None) -> None:
    expected = compose(given, ("title", "body"), template)
    assert db.execute("SELECT embeddb.compose(%s, '{title,body}', %s)", [list(given), template]).fetchall() == [
        (expected,)
    ]


def test_every_character_is_as_blank_as_in_python(db: Database) -> None:
    characters = [chr(point) for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000]
    found = db.execute("SELECT string_agg(c, '') FROM unnest(%s::text[]) c WHERE embeddb.is_blank(c)", [characters])
    [(blank,)] = found.fetchall()
    assert set(blank) == {c for c in characters if compose((c,), ("x",)) is None}


@pytest.mark.parametrize("changes", [{}, {"template": "{title}: {body}", "storage": "halfvec"}], ids=["", "template"])
def test_a_transformers_vectors_are_those_of_the_worker(
    catalog: Engine, db: Database, models: Models, changes: dict[str, Any]
) -> None:
    """Documents have a prompt of their own; sources are composed as the worker composes them; keys of any type."""
    encoder = models.encoder("bert", prompts={"query": "query: ", "document": "passage: "})
    storage = changes.get("storage", "vector")
    db.execute(
        "CREATE TABLE notes (part char(4), id int, title varchar(40), body char(12), embedding "
        f"{storage}(32), PRIMARY KEY (part, id))"
    )
    with catalog.begin() as connection:
        install_transformer(connection, encoder, name="bert")
    register(db, EmbeddingSpec(table="notes", column="embedding", sources=("title", "body"), encoder=encoder.config,
                               dim=32, index=None, **changes))  # fmt: skip
    texts = [
        ("the cat sat", None),
        ("It's a dog!", "a b"),
        (" ", "naïve 東京"),
        ("a b c d e f " * 3, ""),
        ("\u00a0", None),
    ]
    for key, row in enumerate(texts):
        db.execute("INSERT INTO notes VALUES ('ab', %s, %s, %s)", [key, *row])
    assert db.execute(CALL).fetchall() == [(5, 0)]
    assert (queued(db), failures(db)) == ([], [])
    given = [(title, None if body is None else body.ljust(12)) for title, body in texts]
    expected = embed_documents(
        encoder, [compose(row, ("title", "body"), changes.get("template")) or "x" for row in given]
    )
    for (key, found), vector in zip(vectors(db).items(), expected, strict=True):
        assert (found is None) == (key == 4)
        assert found is None or np.abs(found - vector).max() < (1e-3 if storage == "halfvec" else 1e-5)
    db.execute("SELECT embeddb.unregister('notes.embedding'); DELETE FROM embeddb.encoder")


def test_every_row_is_embedded_or_told(drained: Database, words: WordVectors) -> None:
    rows = [(n, ("the cat", "mat", "unheard of", "\u3000", None)[n % 5], None) for n in range(1, 301)]
    with drained.cursor().copy("COPY notes (id, title, body) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    assert drained.execute("CALL embeddb.drain(100)").fetchall()[0][0] + len(failures(drained)) == 100
    drained.execute("UPDATE notes SET embedding = '[1,1,1,1,1,1]' WHERE id = 4")  # blank, as only the worker sees
    [(written, failed)] = drained.execute(CALL).fetchall()
    assert (queued(drained), drained.execute("SELECT count(*) FROM embeddb.worker").fetchall()) == ([], [(0,)])
    assert written + failed >= 140
    unknown = [key for key, title, _ in rows if title == "unheard of"]
    assert [key for key, *_ in failures(drained)] == unknown
    assert {error for _, _, error, _ in failures(drained)} == {
        "the encoder has no embedding for it: it knows nothing in these sources"
    }
    found = vectors(drained)
    expected = dict(zip(("the cat", "mat"), embed_documents(words, ["the cat", "mat"]), strict=True))
    for key, title, _ in rows:
        assert (found[key] is not None) == (title in expected)
        assert title not in expected or np.abs(found[key] - expected[title]).max() < 1e-5
    with connect_like(drained) as other:
        prepare(other)
        [target] = targets(other)
        assert list(verify(other, target, words)) == []


def connect_like(db: Database) -> Database:
    return psycopg.connect(db.info.dsn, autocommit=True)


def test_only_what_is_registered_for_it(drained: Database, words: WordVectors) -> None:
    drained.execute("INSERT INTO notes VALUES (1, 'cat')")
    fingerprint = "UPDATE embeddb.encoder SET fingerprint = "
    for change, back in (
        (fingerprint + "'newer'", fingerprint + f"'{words.fingerprint}'"),
        # Distilled ones only come near their encoder.
        ("UPDATE embeddb.fast_encoder SET embedding = (SELECT id FROM embeddb.embedding)",
         "UPDATE embeddb.fast_encoder SET embedding = NULL"),
    ):  # fmt: skip
        drained.execute(change)
        with pytest.raises(psycopg.Error, match="this database cannot embed the rows of") as raised:
            drained.execute(CALL)
        assert raised.value.sqlstate == "EB004"
        assert "Run embeddb sql install" in str(raised.value.diag.message_hint)
        drained.execute(back)
    for change in (
        "UPDATE embeddb.embedding SET state = 'paused'",
        "UPDATE embeddb.encoder SET wait_until = now() + interval '1 hour'",
        "UPDATE embeddb.job SET not_before = now() + interval '1 hour'",
        "UPDATE embeddb.job SET lease_until = now() + interval '1 hour'",
    ):
        drained.execute(change)
        assert drained.execute(CALL).fetchall() == [(0, 0)]
        drained.execute(
            "UPDATE embeddb.embedding SET state = 'active'; UPDATE embeddb.encoder SET wait_until = NULL;"
            "UPDATE embeddb.job SET not_before = now(), lease_until = NULL"
        )
    assert drained.execute("CALL embeddb.drain(0)").fetchall() == [(0, 0)]
    assert drained.execute("CALL embeddb.drain(10, 'notes.embedding')").fetchall() == [(1, 0)]
    with pytest.raises(psycopg.Error, match="no embedding is called nothing.here"):
        drained.execute("CALL embeddb.drain(10, 'nothing.here')")


def test_not_within_a_transaction(drained: Database) -> None:
    drained.execute("BEGIN")
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        drained.execute(CALL)
    drained.execute("ROLLBACK")


def claimed(db: Database) -> tuple[int, Any]:
    """What the procedure does before the encoder runs, and while it runs."""
    [(worker,)] = db.execute("INSERT INTO embeddb.worker (host, pid, version) VALUES ('test', 1, '1') RETURNING id")
    [job] = db.execute("SELECT * FROM embeddb.drain_claim(%s, NULL, 64)", [worker]).fetchall()
    return worker, job


def settle(db: Database, meanwhile: Any) -> tuple[int, int]:
    """Claim and encode all; then what happens meanwhile; then write. The numbers of written and failed."""
    worker, (embedding, jobs, keys) = claimed(db)
    said = [json.dumps(key) for key in keys]
    encoded = db.execute(
        "SELECT array_agg(key)::text, array_agg(hash)::text, array_agg(vector)::text, array_agg(step)::text,"
        " array_agg(error)::text FROM embeddb.drain_encode(%s, %s::jsonb[])", [embedding, said]
    ).fetchone()  # fmt: skip
    assert encoded is not None
    meanwhile()
    [(written, failed)] = db.execute(
        "SELECT * FROM embeddb.drain_settle(%s, %s, %s, %s::jsonb[], %s::bigint[], %s::vector[], %s::text[],"
        " %s::text[])",
        [worker, embedding, jobs, *encoded],
    ).fetchall()
    return written, failed


def test_rows_that_change_while_the_encoder_runs(drained: Database) -> None:
    """A change: not written, still queued. Gone: its job goes. Locked by a writer: left for later, not waited for."""
    drained.execute("INSERT INTO notes SELECT i, 'cat' FROM generate_series(1, 6) i")
    with connect_like(drained) as writer:

        def meanwhile() -> None:
            drained.execute("UPDATE notes SET title = 'mat' WHERE id = 1; DELETE FROM notes WHERE id = 2")
            writer.execute("BEGIN")
            writer.execute("UPDATE notes SET body = 'mat' WHERE id = 3")

        assert settle(drained, meanwhile) == (3, 0)
        writer.execute("COMMIT")
    assert {key for key, vector in vectors(drained).items() if vector is not None} == {4, 5, 6}
    assert sorted(queued(drained)) == [1, 1, 3, 3]
    drained.execute("UPDATE embeddb.job SET not_before = now()")
    assert drained.execute(CALL).fetchall() == [(2, 0)]
    found = vectors(drained)
    assert not np.allclose(found[1], found[4])
    assert not np.allclose(found[3], found[4])
    assert (queued(drained), failures(drained)) == ([], [])


def test_a_failed_row_that_changed_meanwhile_has_not_failed(drained: Database) -> None:
    drained.execute("INSERT INTO notes VALUES (1, 'unheard'), (2, 'unheard')")
    assert settle(drained, lambda: drained.execute("UPDATE notes SET title = 'cat' WHERE id = 1")) == (0, 1)
    assert [key for key, *_ in failures(drained)] == [2]
    drained.execute("UPDATE embeddb.job SET not_before = now()")
    assert drained.execute(CALL).fetchall() == [(1, 0)]
    drained.execute("UPDATE notes SET title = 'mat' WHERE id = 2")
    assert drained.execute(CALL).fetchall() == [(1, 0)]
    assert failures(drained) == []


def test_what_the_table_refuses_is_a_failure_of_its_row(drained: Database) -> None:
    drained.execute("ALTER TABLE notes ADD CHECK (id <> 3 OR embedding IS NULL)")
    drained.execute("INSERT INTO notes SELECT i, 'cat' FROM generate_series(1, 5) i")
    assert drained.execute(CALL).fetchall() == [(4, 1)]
    [(key, step, error, attempts)] = failures(drained)
    assert (key, step, attempts) == (3, "write", 1)
    assert "violates check constraint" in error
    assert queued(drained) == []


def test_sources_that_are_no_text(drained: Database, words: WordVectors) -> None:
    drained.execute("ALTER TABLE notes ADD year int")
    drained.execute("INSERT INTO notes (id, title, year) VALUES (1, 'cat', 1950)")
    register(drained, notes(words, sources=("title", "year")))
    assert drained.execute(CALL).fetchall() == [(0, 1)]
    assert [row[1:3] for row in failures(drained)] == [
        ("read", "source year is integer, not text: embed a text column")
    ]


def test_many_at_once_embed_each_row_once(drained: Database) -> None:
    """Four sessions, and writers beside them; whoever comes last leaves nothing."""
    drained.execute("INSERT INTO notes SELECT i, 'the cat ' || i FROM generate_series(1, 400) i")
    done: list[int] = []

    def drain() -> None:
        with connect_like(drained) as db:
            db.execute("SET default_transaction_isolation = 'serializable'")
            for _ in range(3):
                [(written, _)] = db.execute(CALL).fetchall()
                done.append(written)

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(done), queued(drained)) == (400, [])
    assert all(vector is not None for vector in vectors(drained).values())


def test_least_privilege(drained: Database) -> None:
    """A worker may; a reader may not."""
    drained.execute("CREATE ROLE drainer; CREATE ROLE looker")
    try:
        drained.execute("SELECT embeddb.grant_worker('drainer'), embeddb.grant_reader('looker')")
        drained.execute("INSERT INTO notes VALUES (1, 'cat'), (2, 'unheard')")
        drained.execute("SET ROLE looker")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            drained.execute(CALL)
        drained.execute("RESET ROLE; SET ROLE drainer")
        assert drained.execute(CALL).fetchall() == [(1, 1)]
    finally:
        drained.execute("RESET ROLE; DROP OWNED BY drainer, looker; DROP ROLE drainer, looker")
