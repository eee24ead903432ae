"""``embeddb.embed`` wherever SQL allows a function, as an analyst with SELECT alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from embeddb.spec import HNSW, EmbeddingSpec
from tests.catalog.application import Database, connect, register
from tests.insql.conftest import InSQL

TITLES = [
    "seaplanes and flying boats",
    "how to bake bread",
    "the heart of a jet engine",
    "boiling eggs",
    "a history of Rome",
    "landing gear for small aircraft",
    "tax law for beginners",
    "chocolate cake",
]
QUERY = "planes that land on water"
EMBED = f"embeddb.embed('articles.embedding', '{QUERY}')"


@pytest.fixture
def articles(insql: InSQL) -> Iterator[Database]:
    """Eight articles with vectors and an index; the reader may read them, and call embed."""
    with connect(insql.engine) as db:
        db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, embedding vector(384))")
        spec = EmbeddingSpec(
            table="articles",
            column="embedding",
            sources=("title",),
            encoder=insql.encoder.config,
            dim=384,
            index=HNSW(),
        )
        register(db, spec)
        for number, (title, vector) in enumerate(zip(TITLES, insql.encoder.encode_documents(TITLES), strict=True)):
            db.execute("INSERT INTO articles VALUES (%s, %s, %s::vector)", [number, title, json.dumps(vector.tolist())])
        db.execute("CREATE INDEX ON articles USING hnsw (embedding vector_cosine_ops)")
        db.execute("CREATE ROLE analyst; SELECT embeddb.grant_reader('analyst'); GRANT SELECT ON articles TO analyst")
        db.execute("SET ROLE analyst; SET enable_seqscan = off")
        yield db
        db.execute("RESET ROLE; SELECT embeddb.unregister('articles.embedding'); DROP TABLE articles CASCADE")
        db.execute("DROP OWNED BY analyst; DROP ROLE analyst; DELETE FROM embeddb.query_cache")


def plan(db: Database, statement: Any) -> str:
    return "\n".join(line for (line,) in db.execute("EXPLAIN (COSTS OFF) " + statement).fetchall())


def calls(db: Database) -> int:
    """How often the transformer ran in this transaction."""
    [(count,)] = db.execute(
        "SELECT coalesce(sum(pg_stat_get_xact_function_calls(oid)), 0) FROM pg_proc"
        " WHERE proname = 'transformer_forward'"
    ).fetchall()
    return int(count)


def test_the_same_vector_as_in_python(articles: Database, insql: InSQL) -> None:
    [(found,)] = articles.execute(f"SELECT {EMBED}::text").fetchall()
    assert np.abs(np.array(json.loads(found)) - insql.encoder.encode_queries([QUERY])[0]).max() < 1e-6
    assert articles.execute("SELECT embeddb.embed('articles.embedding', NULL)").fetchall() == [(None,)]


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT title FROM articles ORDER BY embedding <=> {EMBED} LIMIT 2",
        f"SELECT title FROM articles WHERE title <> '' ORDER BY {EMBED} <=> embedding LIMIT 2",
        f"WITH q AS MATERIALIZED (SELECT {EMBED} AS v)"
        " SELECT title FROM articles ORDER BY embedding <=> (SELECT v FROM q) LIMIT 2",
        "SELECT s.title FROM (VALUES ('planes that land on water')) AS q (q) CROSS JOIN LATERAL"
        " (SELECT title FROM articles ORDER BY embedding <=> embeddb.embed('articles.embedding', q.q) LIMIT 2) s",
    ],
    ids=["order by", "where", "cte", "lateral"],
)
def test_an_index_serves_it(articles: Database, statement: str) -> None:
    assert "Index Scan using articles_embedding_idx" in plan(articles, statement)
    assert [title for (title,) in articles.execute(statement).fetchall()] == [TITLES[0], TITLES[5]]


def test_in_views_prepared_statements_and_generic_plans(articles: Database) -> None:
    articles.execute("RESET ROLE")
    articles.execute(f"CREATE VIEW seaplanes AS SELECT title FROM articles ORDER BY embedding <=> {EMBED} LIMIT 1")
    articles.execute("GRANT SELECT ON seaplanes TO analyst; SET ROLE analyst")
    assert articles.execute("SELECT * FROM seaplanes").fetchall() == [(TITLES[0],)]
    articles.execute(
        "PREPARE nearest (text, int) AS SELECT title FROM articles"
        " ORDER BY embedding <=> embeddb.embed('articles.embedding', $1) LIMIT $2"
    )
    for mode in ("auto", "force_generic_plan", "force_custom_plan"):
        articles.execute(f"SET plan_cache_mode = {mode}")
        assert "Index Scan" in plan(articles, "EXECUTE nearest ('a cake recipe', 1)")
        for _ in range(7):
            assert articles.execute("EXECUTE nearest ('a cake recipe', 1)").fetchall() == [("chocolate cake",)]


def test_in_a_read_only_transaction(articles: Database) -> None:
    articles.execute("BEGIN TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
    statement = f"SELECT title FROM articles ORDER BY embedding <=> {EMBED} LIMIT 1"
    assert [articles.execute(statement).fetchall() for _ in range(2)] == [[(TITLES[0],)]] * 2
    articles.execute("COMMIT")


def test_one_evaluation_serves_ten_thousand_rows(articles: Database) -> None:
    """Without an index Postgres calls the function once a row; with two texts in a statement, for both."""
    articles.execute("RESET ROLE; SET track_functions = 'pl'; SET max_parallel_workers_per_gather = 0")
    articles.execute("CREATE TEMP TABLE many AS SELECT a.* FROM articles a, generate_series(1, 1250)")
    articles.execute("ANALYZE many; BEGIN")
    statement = f"SELECT title FROM many ORDER BY embedding <=> {EMBED} LIMIT 1"
    assert "Seq Scan on many" in plan(articles, statement)
    before = calls(articles)
    assert articles.execute(statement).fetchall() == [(TITLES[0],)]
    assert calls(articles) - before == 1
    other = "embeddb.embed('articles.embedding', 'cooking')"
    nearer = articles.execute(f"SELECT DISTINCT title FROM many WHERE embedding <=> {EMBED} < embedding <=> {other}")
    assert {title for (title,) in nearer.fetchall()} == {TITLES[0], TITLES[5]}
    assert calls(articles) - before <= 5  # the planner asks too
    for number in range(40):
        articles.execute("SELECT embeddb.embed('articles.embedding', %s)", [f"query {number}"])
    assert articles.execute("SELECT count(*) FROM pg_cursors WHERE name LIKE 'embeddb %'").fetchall() == [(1,)]
    articles.execute("COMMIT")


def test_parallel_workers_embed_for_themselves(articles: Database) -> None:
    articles.execute("RESET ROLE")
    articles.execute("CREATE TABLE lots AS SELECT a.* FROM articles a, generate_series(1, 2000); ANALYZE lots")
    articles.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    statement = f"SELECT title FROM lots ORDER BY embedding <=> {EMBED} LIMIT 1"
    assert "Workers Planned" in plan(articles, statement)
    assert articles.execute(statement).fetchall() == [(TITLES[0],)]
    articles.execute("DROP TABLE lots")


def test_what_was_asked_is_not_taken_for_something_else(articles: Database, insql: InSQL) -> None:
    """In one statement, whose answers are kept: the name and the mode are no part of a text."""
    exact, other = insql.encoder.encode_queries(["foo", "exact\x01foo"])
    statement = (
        "SELECT embeddb.embed('articles.embedding', 'foo', 'exact')::text,"
        " embeddb.embed('articles.embedding', E'exact\\x01foo')::text"
    )
    [found] = articles.execute(statement).fetchall()
    for vector, wanted in zip(found, (exact, other), strict=True):
        assert np.allclose(json.loads(vector), wanted, atol=1e-5)
    with pytest.raises(psycopg.Error) as raised:
        articles.execute(
            "SELECT embeddb.embed('articles.embedding', 'foo'), embeddb.embed(NULL, E'articles.embedding\\x01foo')"
        )
    assert raised.value.sqlstate == "EB002"


def test_what_is_remembered_comes_first(articles: Database, insql: InSQL) -> None:
    vector = json.dumps(insql.encoder.encode_queries(["boiling eggs"])[0].tolist())
    statement = "SELECT title FROM articles ORDER BY embedding <=> embeddb.embed('articles.embedding', 'x') LIMIT 1"
    articles.execute("RESET ROLE")
    articles.execute("SELECT embeddb.remember('articles.embedding', 'x', %s)", [vector])
    articles.execute("SET ROLE analyst")
    assert articles.execute(statement).fetchall() == [("boiling eggs",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        articles.execute("SELECT embeddb.remember('articles.embedding', 'x', '[1]')")
    articles.execute("RESET ROLE")
    with pytest.raises(psycopg.Error, match="has vectors of 384 dimensions, not of 1"):
        articles.execute("SELECT embeddb.remember('articles.embedding', 'x', '[1]')")


@pytest.mark.parametrize(
    ("call", "state", "message"),
    [
        ("embeddb.embed('nothing.here', 'x')", "EB002", "no embedding is called nothing.here"),
        ("embeddb.embed('articles.embedding', 'x', 'best')", "EB004", "knows the modes exact and fast, and not 'best'"),
        ("embeddb.embed('notes.embedding', 'x')", "EB004", "this database cannot embed a text for notes.embedding"),
        ("embeddb.embed('articles.embedding', E'\\u1b44\\u0c3c')", "EB004", "cannot be embedded in SQL by minilm"),
    ],
)
def test_what_cannot_be_embedded_is_an_error(articles: Database, call: Any, state: str, message: str) -> None:
    articles.execute("RESET ROLE; CREATE TABLE notes (id int PRIMARY KEY, title text, embedding vector(3))")
    register(
        articles,
        EmbeddingSpec(
            table="notes",
            column="embedding",
            sources=("title",),
            encoder={"type": "hashing", "dim": 3},
            dim=3,
            index=None,
        ),
    )
    try:
        articles.execute("SET ROLE analyst")
        with pytest.raises(psycopg.Error, match=message) as raised:
            articles.execute("SELECT " + call)
        assert raised.value.sqlstate == state
        # A Hashing cannot be installed, so no hint says so.
        assert "sql install" not in str(raised.value.diag.message_hint)
    finally:
        articles.execute("RESET ROLE; SELECT embeddb.unregister('notes.embedding'); DROP TABLE notes")


def test_weights_of_another_version_are_not_used(articles: Database) -> None:
    articles.execute("RESET ROLE")
    articles.execute("BEGIN; UPDATE embeddb.encoder SET fingerprint = 'newer'")
    with pytest.raises(psycopg.Error, match="cannot embed") as raised:
        articles.execute(f"SELECT {EMBED}")
    assert "of an older version of its encoder" in str(raised.value.diag.message_detail)
    articles.execute("ROLLBACK")
