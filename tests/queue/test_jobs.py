"""Claiming, reading, settling: what becomes of jobs, and what never happens to a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import Engine

from embeddb.queue import (
    Done,
    Failed,
    Gone,
    Job,
    Later,
    Outcome,
    Settled,
    Target,
    claim,
    finish,
    heartbeat,
    idle_until,
    jobs,
    leave,
    prepare,
    read,
    register_worker,
    release,
    settle,
    split,
    targets,
    wait,
)
from tests.catalog.application import ARTICLES, Database, connect, queued, register, spec

LEASE = timedelta(minutes=5)
VECTOR = np.array([1, 2, 3], np.float32)


@pytest.fixture
def target(articles: Database) -> Target:
    prepare(articles)
    [target] = targets(articles)
    return target


@pytest.fixture
def other(catalog: Engine) -> Iterator[Database]:
    """A second session: another worker, or a writer in the middle of a transaction."""
    with connect(catalog) as other:
        prepare(other)
        yield other


def insert(db: Database, *keys: int) -> None:
    """One job a row."""
    for key in keys:
        db.execute("INSERT INTO articles (id, title) VALUES (%s, %s)", [key, f"title {key}"])


def keys_of(claimed: Sequence[Job]) -> list[str]:
    return [key for job in claimed for key in job.keys]


def encode(db: Database, target: Target, claimed: Sequence[Job]) -> dict[str, Outcome]:
    """Every present row gets the vector, every other is gone."""
    keys = keys_of(claimed)
    present: dict[str, Outcome] = {row.key: Done(row.hash, VECTOR) for row in read(db, target, keys)}
    return {key: present.get(key, Gone()) for key in keys}


def embedded(db: Database) -> list[int]:
    return [key for (key,) in db.execute("SELECT id FROM articles WHERE embedding IS NOT NULL ORDER BY id")]


def test_claim_read_settle(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    articles.execute("INSERT INTO articles (id, title, body) SELECT i, 'a', 'b' FROM generate_series(10, 309) i")
    claimed = claim(articles, target, 7, rows=1000, lease=LEASE)
    assert [len(job.keys) for job in sorted(claimed, key=lambda job: job.id)] == [1, 1, 256, 44]
    assert {job.attempts for job in claimed} == {1}
    rows = {row.key: row.values for row in read(articles, target, keys_of(claimed))}
    assert (len(rows), rows["1"], rows["10"]) == (302, ("title 1", None), ("a", "b"))
    assert settle(articles, target, 7, claimed, encode(articles, target, claimed)) == Settled(302, 0, 0, 0)
    assert articles.execute("SELECT count(*) FROM articles WHERE embedding = '[1,2,3]'").fetchall() == [(302,)]
    assert queued(articles) == []
    assert claim(articles, target, 7, rows=10, lease=LEASE) == []


def test_a_claim_takes_about_as_many_rows_as_asked_most_urgent_first(articles: Database, target: Target) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1000, 1599) i")
    articles.execute("UPDATE embeddb.job SET priority = 10")
    insert(articles, 1, 2, 3)
    assert sorted(keys_of(claim(articles, target, 1, rows=2, lease=LEASE))) == ["1", "2"]
    assert len(keys_of(claim(articles, target, 1, rows=2, lease=LEASE))) == 1 + 256
    assert len(keys_of(claim(articles, target, 1, rows=257, lease=LEASE))) == 256 + 88


def test_workers_pass_each_other(articles: Database, target: Target, other: Database) -> None:
    insert(articles, 1, 2)
    with articles.transaction():
        first = claim(articles, target, 1, rows=1, lease=LEASE)
        other.execute("SET lock_timeout = '200ms'")
        second = claim(other, target, 2, rows=1, lease=LEASE)
    assert sorted(keys_of(first) + keys_of(second)) == ["1", "2"]
    assert claim(other, target, 2, rows=1, lease=LEASE) == []


def test_the_jobs_of_a_dead_worker_return(articles: Database, target: Target) -> None:
    insert(articles, 1)
    [dead] = claim(articles, target, 1, rows=1, lease=timedelta(seconds=-1))
    [again] = claim(articles, target, 2, rows=1, lease=LEASE)
    assert (again.id, again.attempts) == (dead.id, 2)
    # The dead one comes back to life: it can write, and cannot take away what is another's.
    assert settle(articles, target, 1, [dead], {"1": Later(3600, counted=True)}).kept == 1
    finish(articles, 1, [dead.id])
    assert settle(articles, target, 2, [again], encode(articles, target, [again])).written == 1
    assert queued(articles) == []


def test_a_heartbeat_makes_leases_longer_and_leaving_gives_them_back(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    worker = register_worker(articles)
    claimed = claim(articles, target, worker, rows=2, lease=timedelta(seconds=1))
    held = [job.id for job in claimed]
    heartbeat(articles, worker, jobs=held[:1], lease=LEASE, embedded=5, failed=1)
    view = "SELECT alive, stopping, embedded, failed, holding FROM embeddb.workers"
    assert articles.execute(view).fetchall() == [(True, False, 5, 1, 2)]
    leases = articles.execute(
        "SELECT lease_until > now() + interval '1 minute' FROM embeddb.job ORDER BY id"
    ).fetchall()
    assert sorted(leases) == [(False,), (True,)]
    leave(articles, worker, held)
    assert articles.execute(view).fetchall() == []
    assert {job.attempts for job in claim(articles, target, 9, rows=2, lease=LEASE)} == {1}


def test_silent_workers_are_buried(articles: Database) -> None:
    register_worker(articles)
    jobs.bury(articles, timedelta(minutes=1))
    assert articles.execute("SELECT count(*) FROM embeddb.worker").fetchall() == [(1,)]
    articles.execute("UPDATE embeddb.worker SET heartbeat_at = now() - interval '2 minutes'")
    assert articles.execute("SELECT alive FROM embeddb.workers").fetchall() == [(False,)]
    jobs.bury(articles, timedelta(minutes=1))
    assert articles.execute("SELECT count(*) FROM embeddb.worker").fetchall() == [(0,)]


def test_a_source_that_changed_since_it_was_read_is_not_written(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    claimed = claim(articles, target, 1, rows=2, lease=LEASE)
    outcomes = encode(articles, target, claimed)
    articles.execute("UPDATE articles SET title = 'changed' WHERE id = 1")
    articles.execute("UPDATE articles SET year = 5 WHERE id = 2")
    assert settle(articles, target, 1, claimed, outcomes) == Settled(1, 0, 0, 1)
    assert embedded(articles) == [2]
    assert queued(articles) == [1, 1]


def test_a_row_that_a_writer_holds_is_left_without_waiting(articles: Database, target: Target, other: Database) -> None:
    insert(articles, 1, 2, 3)
    claimed = claim(articles, target, 1, rows=3, lease=LEASE)
    outcomes = encode(articles, target, claimed)
    articles.execute("SET lock_timeout = '200ms'")
    with other.transaction():
        other.execute("UPDATE articles SET title = 'changed' WHERE id = 1")
        other.execute("DELETE FROM articles WHERE id = 2")
        assert settle(articles, target, 1, claimed, outcomes) == Settled(1, 0, 0, 2)
    assert embedded(articles) == [3]
    # The change has its own job, the kept one is as good; the deleted row's went with it.
    assert queued(articles) == [1, 1]
    [first, second] = claim(articles, target, 1, rows=3, lease=LEASE)
    assert (first.attempts, second.attempts) == (1, 1)


def test_deleted_rows_are_gone_and_do_not_look_like_an_empty_queue(articles: Database, target: Target) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1, 300) i")
    articles.execute("DELETE FROM articles WHERE id < 257")
    claimed = claim(articles, target, 1, rows=1, lease=LEASE)
    assert len(keys_of(claimed)) == 256
    assert settle(articles, target, 1, claimed, encode(articles, target, claimed)) == Settled(0, 256, 0, 0)
    assert idle_until(articles, target) == 0


def test_a_row_deleted_after_it_was_read_is_gone(articles: Database, target: Target) -> None:
    insert(articles, 1)
    claimed = claim(articles, target, 1, rows=1, lease=LEASE)
    outcomes = encode(articles, target, claimed)
    articles.execute("DELETE FROM articles")
    assert settle(articles, target, 1, claimed, outcomes) == Settled(0, 1, 0, 0)


def test_a_blank_row_gets_no_vector_and_loses_its_old_one(articles: Database, target: Target) -> None:
    articles.execute("INSERT INTO articles (id, title, embedding) VALUES (1, 'a', '[1,0,0]')")
    articles.execute("UPDATE articles SET title = ' '")
    claimed = claim(articles, target, 1, rows=1, lease=LEASE)
    [row] = read(articles, target, keys_of(claimed))
    assert settle(articles, target, 1, claimed, {"1": Done(row.hash, None)}).written == 1
    assert (embedded(articles), queued(articles)) == ([], [])


def test_failures_are_recorded_updated_and_recovered_from(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    claimed = claim(articles, target, 1, rows=2, lease=LEASE)
    hashes = {row.key: row.hash for row in read(articles, target, keys_of(claimed))}
    outcomes: dict[str, Outcome] = {
        "1": Failed(hashes["1"], "encode", "no\x00n" + "x" * 5000),
        "2": Done(hashes["2"], VECTOR),
    }
    assert settle(articles, target, 1, claimed, outcomes) == Settled(1, 0, 1, 0)
    failures = "SELECT key, step, left(error, 5), length(error), attempts FROM embeddb.failures"
    assert articles.execute(failures).fetchall() == [(1, "encode", "nonxx", 2000, 1)]
    assert (queued(articles), jobs.retry(articles, target), queued(articles)) == ([], 1, [1])
    again = claim(articles, target, 1, rows=1, lease=LEASE)
    assert settle(articles, target, 1, again, {"1": Failed(None, "read", "worse")}).failed == 1
    assert articles.execute(failures).fetchall() == [(1, "read", "worse", 5, 1)]
    articles.execute("UPDATE articles SET title = 'better' WHERE id = 1")
    again = claim(articles, target, 1, rows=1, lease=LEASE)
    assert settle(articles, target, 1, again, encode(articles, target, again)).written == 1
    assert articles.execute(failures).fetchall() == []


def test_no_failure_is_recorded_of_sources_that_are_no_more(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    claimed = claim(articles, target, 1, rows=2, lease=LEASE)
    outcomes: dict[str, Outcome] = {
        row.key: Failed(row.hash, "encode", "no") for row in read(articles, target, ["1", "2"])
    }
    articles.execute("UPDATE articles SET title = 'mended' WHERE id = 1; DELETE FROM articles WHERE id = 2")
    assert settle(articles, target, 1, claimed, outcomes) == Settled(0, 1, 0, 1)
    assert articles.execute("SELECT FROM embeddb.failure").fetchall() == []


def test_retry_and_forget_by_key(articles: Database, target: Target) -> None:
    insert(articles, 1, 2, 3)
    claimed = claim(articles, target, 1, rows=3, lease=LEASE)
    settle(articles, target, 1, claimed, {key: Failed(None, "read", "no") for key in keys_of(claimed)})
    assert jobs.retry(articles, target, ["1"]) == 1
    assert jobs.forget(articles, target, ["3", "99"]) == 1
    assert queued(articles) == [1]
    assert articles.execute("SELECT key FROM embeddb.failure").fetchall() == [(2,)]


def test_what_remains_of_a_job_keeps_its_place_or_waits(articles: Database, target: Target) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1, 64) i")
    [job] = claim(articles, target, 1, rows=64, lease=LEASE)
    outcomes = encode(articles, target, [job])
    outcomes["5"] = outcomes["6"] = Later()
    del outcomes["7"]
    assert settle(articles, target, 1, [job], outcomes) == Settled(61, 0, 0, 3)
    [again] = claim(articles, target, 1, rows=64, lease=LEASE)
    assert (again.id, again.keys, again.attempts) == (job.id, ("5", "6", "7"), 1)
    outcomes = encode(articles, target, [again])
    outcomes["6"] = Later(3600, counted=True)
    settle(articles, target, 1, [again], outcomes)
    assert claim(articles, target, 1, rows=64, lease=LEASE) == []
    assert 3590 < (idle_until(articles, target) or 0) <= 3600
    articles.execute("UPDATE embeddb.job SET not_before = now()")
    assert [job.attempts for job in claim(articles, target, 1, rows=64, lease=LEASE)] == [2]


def test_release_gives_back_with_or_without_an_attempt(articles: Database, target: Target) -> None:
    insert(articles, 1, 2)
    [first, second] = sorted(claim(articles, target, 1, rows=2, lease=LEASE), key=lambda job: job.id)
    release(articles, 1, [first])
    release(articles, 1, [second], delay=timedelta(hours=1), counted=True)
    [again] = claim(articles, target, 1, rows=2, lease=LEASE)
    assert (again.id, again.attempts) == (first.id, 1)


def test_split_lets_every_row_stand_alone(articles: Database, target: Target) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1, 64) i")
    [job] = claim(articles, target, 1, rows=64, lease=LEASE)
    split(articles, 1, [job.id])
    claimed = claim(articles, target, 1, rows=64, lease=LEASE)
    assert sorted(int(key) for job in claimed for key in job.keys) == [*range(1, 65)]
    assert {(len(job.keys), job.attempts) for job in claimed} == {(1, 1)}


def test_a_rate_limit_holds_for_every_worker_and_passes(articles: Database, target: Target, other: Database) -> None:
    insert(articles, 1)
    wait(articles, target, 3600, "429 Too Many Requests")
    wait(articles, target, 1, "an earlier answer")
    assert claim(other, target, 2, rows=1, lease=LEASE) == []
    assert 3590 < (idle_until(other, target) or 0) <= 3600
    articles.execute("UPDATE embeddb.encoder SET wait_until = now()")
    assert len(claim(other, target, 2, rows=1, lease=LEASE)) == 1


def test_a_paused_embedding_is_not_claimed(articles: Database, target: Target) -> None:
    insert(articles, 1)
    articles.execute("UPDATE embeddb.embedding SET state = 'paused'")
    assert (claim(articles, target, 1, rows=1, lease=LEASE), idle_until(articles, target)) == ([], None)


def test_a_key_in_two_jobs_is_settled_once(articles: Database, target: Target) -> None:
    insert(articles, 1)
    articles.execute("UPDATE articles SET title = 'b'")
    claimed = claim(articles, target, 1, rows=2, lease=LEASE)
    assert keys_of(claimed) == ["1", "1"]
    assert settle(articles, target, 1, claimed, encode(articles, target, claimed)).written == 1
    assert queued(articles) == []


def test_renamed_tables_and_columns_need_a_new_target_only(articles: Database, target: Target) -> None:
    insert(articles, 1)
    articles.execute("ALTER TABLE articles RENAME title TO headline; ALTER TABLE articles RENAME TO posts")
    [renamed] = targets(articles, "posts.embedding")
    assert (renamed.sources, renamed.spec.sources) == (("headline", "body"), ("title", "body"))
    claimed = claim(articles, renamed, 1, rows=1, lease=LEASE)
    assert settle(articles, renamed, 1, claimed, encode(articles, renamed, claimed)).written == 1


@pytest.mark.parametrize("kind", ["composite", "partitioned", "text"])
def test_every_kind_of_key_and_table_is_written(db: Database, kind: str) -> None:
    key = "a int, b uuid, PRIMARY KEY (a, b)" if kind != "text" else "a text PRIMARY KEY"
    db.execute(
        f"CREATE TABLE t ({key}, title text, body text, embedding vector(3))"
        + (" PARTITION BY LIST (a); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)" if kind == "partitioned" else "")
        + ("; CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)" if kind == "partitioned" else "")
    )
    register(db, spec("t"))
    columns, values = ("a, b", "i, gen_random_uuid()") if kind != "text" else ("a", "'[\"' || i || '%s''\\'")
    for i in (1, 2):
        db.execute(
            f"INSERT INTO t ({columns}, title) SELECT {values}, 'x' FROM generate_series({i}, {i}) i".replace(
                "%", "%%"
            ),
            [],
        )
    prepare(db)
    [target] = targets(db)
    claimed = claim(db, target, 1, rows=2, lease=LEASE)
    assert settle(db, target, 1, claimed, encode(db, target, claimed)) == Settled(2, 0, 0, 0)
    assert db.execute("SELECT count(embedding) FROM t").fetchall() == [(2,)]


def test_halfvec_columns_are_written(db: Database) -> None:
    db.execute(ARTICLES.replace("vector(3)", "halfvec(3)"))
    register(db, spec(storage="halfvec"))
    insert(db, 1)
    prepare(db)
    [target] = targets(db)
    claimed = claim(db, target, 1, rows=1, lease=LEASE)
    assert settle(db, target, 1, claimed, encode(db, target, claimed)).written == 1
    assert db.execute("SELECT embedding::text FROM articles").fetchall() == [("[1,2,3]",)]


def test_claim_and_write_use_their_indexes(articles: Database, target: Target) -> None:
    """No scan of a table that grows: not of the queue, and not of the application's."""
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1, 5000) i; ANALYZE articles")
    articles.execute(
        "INSERT INTO embeddb.job (embedding, keys) SELECT id, '[1]' FROM embeddb.embedding, generate_series(1, 5000)"
    )
    articles.execute("ANALYZE embeddb.job")
    plans = {
        "claim": {"embedding": target.id, "jobs": 256, "rows": 256, "lease": LEASE, "worker": 1},
        "read": {"keys": ["1", "2"]},
        "write": {"keys": ["1", "2"], "hashes": [0, 0], "vectors": None},
        "absent": {"keys": ["1", "2"]},
    }
    for block, parameters in plans.items():
        statement = target.statement(block).as_string(articles).replace("%(vectors)s", "%(vectors)s::vector[]")
        rows = articles.execute(f"EXPLAIN {statement}", parameters)  # type: ignore[call-overload]
        plan = "\n".join(line for (line,) in rows)
        assert "Seq Scan on articles" not in plan, plan
        assert "Seq Scan on job" not in plan, plan
