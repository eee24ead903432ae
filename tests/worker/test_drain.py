"""Draining the queue in this process: what becomes of good rows, bad rows, and encoders in trouble."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import embeddb
from embeddb import Vector, embedding_column
from embeddb.encoders import Hashing
from embeddb.errors import EncoderError, EncoderNotFound
from embeddb.queue import prepare, targets
from embeddb.queue.verify import verify
from embeddb.worker import Options, Totals, Worker
from embeddb.worker.encoding import HOPELESS
from embeddb.worker.metrics import Metrics
from tests.catalog.application import ARTICLES, Database, queued, register, spec
from tests.worker.scripted import Scripted

QUICK = Options(retry=0.01, max_retry=0.05, max_attempts=4, poll=0.02)


def insert(db: Database, *titles: str | None) -> None:
    """Rows 0, 1, 2, … in one statement."""
    numbers = list(range(len(titles)))
    db.execute("INSERT INTO articles (id, title) SELECT * FROM unnest(%s::int[], %s::text[])", [numbers, list(titles)])


def work(catalog: Engine, encoder: Any, options: Options = QUICK, **more: Any) -> Totals:
    return Worker(catalog, encoders=[encoder], options=options, **more).run(once=True)


def failures(db: Database) -> list[tuple[Any, ...]]:
    return db.execute("SELECT key, step, attempts, error FROM embeddb.failure ORDER BY key").fetchall()


def missing(db: Database) -> list[int]:
    return [key for (key,) in db.execute("SELECT id FROM articles WHERE embedding IS NULL ORDER BY id")]


def broken(db: Database, encoder: Any) -> list[Any]:
    """What verify finds."""
    prepare(db)
    return [violation for target in targets(db) for violation in verify(db, target, encoder)]


def test_every_row_gets_its_own_vector(catalog: Engine, articles: Database) -> None:
    insert(articles, *(f"title {number}" for number in range(700)), None, "  ", "\u00a0")
    totals = work(catalog, Scripted())
    # The last is blank to Unicode alone: the trigger queues it, the worker finds nothing to embed.
    assert (totals.embedded, totals.failed) == (701, 0)
    assert missing(articles) == [700, 701, 702]
    assert broken(articles, Hashing(dim=3)) == []
    assert queued(articles) == []
    assert articles.execute("SELECT count(*) FROM embeddb.worker").fetchall() == [(0,)]


def test_poison_stands_alone(catalog: Engine, articles: Database) -> None:
    insert(articles, *("poison" if number in (0, 57, 199) else f"title {number}" for number in range(200)))
    totals = work(catalog, Scripted())
    assert (totals.embedded, totals.failed) == (197, 3)
    assert missing(articles) == [0, 57, 199]
    assert [(key, step) for key, step, *_ in failures(articles)] == [(0, "encode"), (57, "encode"), (199, "encode")]
    assert all("cannot embed 'poison'" in error for *_, error in failures(articles))
    assert broken(articles, Hashing(dim=3)) == []


def test_a_row_that_was_mended_loses_its_failure(catalog: Engine, articles: Database) -> None:
    insert(articles, "poison", "good")
    work(catalog, Scripted())
    articles.execute("UPDATE articles SET title = 'mended' WHERE id = 0")
    work(catalog, Scripted())
    assert (failures(articles), missing(articles)) == ([], [])


def test_what_the_encoder_knows_nothing_of_is_a_failure_and_no_vector(catalog: Engine, articles: Database) -> None:
    insert(articles, "nothing", "something")
    assert work(catalog, Scripted()).failed == 1
    [(key, step, _, error)] = failures(articles)
    assert (key, step, missing(articles)) == (0, "encode", [0])
    assert "no embedding" in error


def test_what_passes_is_tried_again_and_what_does_not_is_given_up(catalog: Engine, articles: Database) -> None:
    insert(articles, "flaky", "hopeless", "good")
    totals = work(catalog, Scripted())
    assert (totals.embedded, totals.failed) == (2, 1)
    [(key, step, attempts, error)] = failures(articles)
    assert (key, step, attempts) == (1, "encode", QUICK.max_attempts)
    assert "the service is away" in error


def test_a_rate_limit_is_a_wait_that_all_share_and_no_attempt(catalog: Engine, articles: Database) -> None:
    insert(articles, "limit", "good")
    encoder, calls = Scripted(), []

    def observe(*_: object) -> None:
        calls.append(articles.execute("SELECT wait_until > now(), wait_reason FROM embeddb.encoder").fetchall())
        calls.append(articles.execute("SELECT attempts FROM embeddb.job").fetchall())

    totals = work(catalog, encoder, observer=observe)
    assert totals.embedded == 2
    assert calls[0] == [(True, "slow down")]
    assert set(calls[1]) == {(0,)}
    assert failures(articles) == []


def test_an_encoder_that_is_broken_is_not_the_rows_fault(catalog: Engine, articles: Database) -> None:
    insert(articles, *(f"title {number}" for number in range(3 * HOPELESS)))
    attempts: list[Any] = []
    encoder = Scripted(broken=True)

    def mend(*_: object) -> None:
        attempts.append(len(failures(articles)))
        encoder.broken = len(attempts) < 3

    totals = work(catalog, encoder, observer=mend)
    assert attempts[:2] == [0, 0]
    assert (totals.embedded, totals.failed) == (3 * HOPELESS, 0)


def test_rows_that_the_table_refuses_are_failures_of_the_write(catalog: Engine, articles: Database) -> None:
    articles.execute("ALTER TABLE articles ADD CHECK (title <> 'bad' OR embedding IS NULL)")
    articles.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.title = 'worse' AND new.embedding IS NOT NULL THEN RAISE 'not this one'; END IF; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON articles DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    insert(articles, "good", "bad", "better", "worse")
    totals = work(catalog, Scripted())
    assert (totals.embedded, totals.failed) == (2, 2)
    assert [(key, step) for key, step, *_ in failures(articles)] == [(1, "write"), (3, "write")]
    assert "not this one" in failures(articles)[1][3]
    articles.execute("DROP FUNCTION refuse CASCADE")


def test_a_queue_of_deleted_rows_is_not_empty(catalog: Engine, articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'gone' FROM generate_series(10, 2009) i")
    insert(articles, "here")
    articles.execute("UPDATE embeddb.job SET priority = 5 WHERE jsonb_array_length(keys) = 1")
    articles.execute("DELETE FROM articles WHERE id >= 10")
    totals = work(catalog, Scripted(), Options(rows=64))
    assert (totals.embedded, totals.gone) == (1, 2000)
    assert queued(articles) == []


def test_fresh_rows_go_before_a_backfill(catalog: Engine, db: Database) -> None:
    db.execute(ARTICLES)
    db.execute("INSERT INTO articles (id, title) SELECT i, 'old ' || i FROM generate_series(1, 600) i")
    register(db)
    db.execute("SELECT embeddb.backfill('articles.embedding')")
    db.execute("INSERT INTO articles (id, title) VALUES (0, 'fresh')")
    encoder = Scripted()
    work(catalog, encoder, Options(rows=100, writers=1))
    first = list(encoder.seen)[: encoder.calls[0]]
    assert "fresh" in first
    assert missing(db) == []


def test_names_that_change_are_followed(catalog: Engine, articles: Database) -> None:
    insert(articles, "one")
    articles.execute("ALTER TABLE articles RENAME title TO headline; ALTER TABLE articles RENAME TO papers")
    assert work(catalog, Scripted()).embedded == 1
    articles.execute("ALTER TABLE papers RENAME headline TO title; ALTER TABLE papers RENAME TO articles")


def test_an_encoder_that_cannot_be_loaded_is_an_error_and_costs_no_attempt(catalog: Engine, db: Database) -> None:
    db.execute(ARTICLES)
    register(db, spec(encoder={"type": "of-another-world"}))
    insert(db, "a", "b")
    with pytest.raises(EncoderNotFound, match="of-another-world"):
        embeddb.drain(catalog)
    assert db.execute("SELECT DISTINCT attempts, lease_until FROM embeddb.job").fetchall() == [(0, None)]
    assert db.execute("SELECT count(*) FROM embeddb.worker").fetchall() == [(0,)]


def test_a_model_that_changed_under_its_name_is_not_mixed_in(catalog: Engine, articles: Database) -> None:
    insert(articles, "old")
    work(catalog, Scripted(fingerprint="of old weights"))
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'new')")
    with pytest.raises(EncoderError, match="backfill articles.embedding --everything"):
        work(catalog, Scripted(fingerprint="of new weights"))
    assert missing(articles) == [1]
    assert work(catalog, Scripted(fingerprint="of old weights")).embedded == 1


def test_only_the_embeddings_that_are_named(catalog: Engine, articles: Database) -> None:
    articles.execute(ARTICLES.replace("articles", "papers"))
    register(articles, spec("papers"))
    insert(articles, "a")
    articles.execute("INSERT INTO papers (title) VALUES ('b')")
    assert work(catalog, Scripted(), names=["papers.embedding"]).embedded == 1
    assert missing(articles) == [0]


def test_metrics(catalog: Engine, articles: Database) -> None:
    registry = CollectorRegistry()
    insert(articles, "good", "poison", "better")
    work(catalog, Scripted(), observer=Metrics(registry))
    labels = {"embedding": "articles.embedding"}
    assert registry.get_sample_value("embeddb_rows_total", {**labels, "outcome": "embedded"}) == 2
    assert registry.get_sample_value("embeddb_rows_total", {**labels, "outcome": "failed"}) == 1
    assert registry.get_sample_value("embeddb_encode_seconds_count", labels) == 1


class Base(DeclarativeBase):
    pass


class Report(Base):
    __tablename__ = "reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    embedding: Mapped[Vector | None] = embedding_column(
        "body", encoder=Hashing(dim=16), mode="queued", index=None, template="report: {body}"
    )


@pytest.mark.parametrize("twin", ["drain", "drain_async"])
async def test_drain_of_a_declarative_base(catalog: Engine, db: Database, twin: str) -> None:
    Base.metadata.create_all(catalog)
    embeddb.register(catalog, Base)
    db.execute("INSERT INTO reports (body) SELECT 'report ' || i FROM generate_series(1, 300) i")
    progress: list[int] = []
    if twin == "drain":
        totals = embeddb.drain(catalog, Base, progress=lambda totals: progress.append(totals.embedded))
    else:
        engine = create_async_engine(catalog.url)
        totals = await embeddb.drain_async(engine, Base, progress=lambda totals: progress.append(totals.embedded))
        await engine.dispose()
    assert totals.embedded == progress[-1] == 300
    assert broken(db, Hashing(dim=16)) == []
