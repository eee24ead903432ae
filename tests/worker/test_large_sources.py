"""Rows whose sources are large: read a few at a time, written by their keys, left where Postgres cannot hash them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from psycopg import sql
from sqlalchemy import Engine

from embeddb.encoders import Hashing
from embeddb.queue import Target, prepare, sizes, targets
from embeddb.queue.vectors import VectorArray, dumper
from embeddb.queue.verify import verify
from embeddb.worker import Options, Worker, claiming
from tests.catalog.application import Database, register, spec
from tests.worker.scripted import Scripted

DIGITS = random.Random(0)
LONG = 8_000


def insert(db: Database, first: int, *lengths: int) -> None:
    """Rows in one statement, of digits that hardly compress, and tell Scripted nothing."""
    titles = ["".join(DIGITS.choices("0123456789", k=length)) for length in lengths]
    numbers = list(range(first, first + len(titles)))
    db.execute("INSERT INTO articles (id, title) SELECT * FROM unnest(%s::int[], %s::text[])", [numbers, titles])


@pytest.fixture
def target(articles: Database, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Of `articles`, where a portion holds two long texts."""
    monkeypatch.setattr(sizes, "_SMALL", 0)
    monkeypatch.setattr(sizes, "PORTION", 2 * LONG + 100)
    prepare(articles)
    return targets(articles)[0]


def test_as_many_are_read_as_memory_holds_and_the_others_later(
    catalog: Engine, articles: Database, target: Target
) -> None:
    insert(articles, 0, *[LONG] * 70)  # one job
    for number in range(70, 75):  # a job each
        insert(articles, number, LONG)
    insert(articles, 75, 4 * LONG, *[10] * 6)
    encoder = Scripted()
    totals = Worker(catalog, encoders=[encoder], options=Options(poll=0.02)).run(once=True)
    assert (totals.embedded, totals.failed, totals.kept) == (82, 0, 0)
    assert (sum(encoder.calls), encoder.calls[:3]) == (82, [2, 2, 2])
    assert max(encoder.calls) <= 2 + 6
    assert set(encoder.seen.values()) == {1}
    assert list(verify(articles, target, Hashing(dim=3))) == []


def test_a_row_that_postgres_could_not_hash_is_a_failure(
    catalog: Engine, articles: Database, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "MOST", 3 * LONG)
    insert(articles, 1, LONG, 4 * LONG, LONG)
    totals = Worker(catalog, encoders=[Scripted()]).run(once=True)
    assert (totals.embedded, totals.failed) == (2, 1)
    [(key, step, error)] = articles.execute("SELECT key, step, error FROM embeddb.failure").fetchall()
    assert (key, step) == (2, "read")
    assert error.startswith("its sources take 32,000 bytes")


def test_sizes_are_known_of_partitions_and_not_asked_of_small_tables(
    articles: Database, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    articles.execute(
        "CREATE TABLE parts (id int PRIMARY KEY, title text, body text, embedding vector(3)) PARTITION BY LIST (id);"
        "CREATE TABLE part PARTITION OF parts DEFAULT"
    )
    register(articles, spec("parts"))
    insert(articles, 1, LONG, 10)
    articles.execute("INSERT INTO parts (id, title) SELECT id, title FROM articles")
    partitioned = targets(articles, "parts.embedding")[0]
    for each in (target, partitioned):
        assert sizes.measure(articles, each, ["1", "2", "3"]) == {"1": LONG, "2": 10}
    monkeypatch.setattr(sizes, "_SMALL", 10**6)
    assert sizes.measure(articles, target, ["1", "2"]) == {}


def test_only_the_rows_that_are_written_are_hashed(articles: Database, target: Target) -> None:
    insert(articles, 1, *[100] * 20)
    articles.execute("ANALYZE articles")
    vectors = VectorArray.of([np.ones(3, np.float32)], target.storage, target.vector_oid)
    given = {"embedding": target.id, "keys": ["1"], "hashes": [1], "vectors": vectors}
    given |= {"steps": ["read"], "errors": [""], "attempts": [1]}
    articles.adapters.register_dumper(VectorArray, dumper(target.array_oid))
    for block in ("write", "fail"):
        plan = articles.execute(sql.SQL("EXPLAIN {}").format(target.statement(block)), given).fetchall()
        conditions = [line.strip() for (line,) in plan if "hashtextextended" in line]
        assert len(conditions) == 1
        assert conditions[0].startswith(("Join Filter", "Filter"))
