"""The worker's commands against a real database."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from embeddb.cli.main import build
from embeddb.encoders import Hashing
from embeddb.errors import CatalogError, CatalogMissing
from embeddb.local import LocalPostgres
from embeddb.worker import Worker
from embeddb.worker.rebuild import drop_indexes
from tests.catalog.application import ARTICLES, Database, queued, register, spec
from tests.worker.scripted import Scripted
from tests.worker.test_drain import broken, failures, insert, missing, work

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def server(server18: LocalPostgres) -> LocalPostgres:
    """One version is enough here."""
    return server18


@pytest.fixture
def command(catalog: Engine) -> Iterator[Command]:
    """Run a command on the database."""
    url = catalog.url.render_as_string(hide_password=False)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(build(), [*arguments, "-u", url], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    yield run
    logger = logging.getLogger("embeddb")
    logger.handlers, logger.propagate = [], True


def test_worker_once(command: Command, articles: Database) -> None:
    insert(articles, "one", "two", None)
    assert "2 rows embedded, 0 failed" in command("worker", "--once", "-e", "articles.embedding").output
    assert missing(articles) == [2]


def test_unknown_names_are_told(command: Command, articles: Database) -> None:
    for arguments in (["worker", "--once", "-e", "no.such"], ["backfill", "no.such"], ["failures", "retry", "no.such"]):
        with pytest.raises(CatalogError, match=r"articles\.embedding"):
            command(*arguments)


def test_backfill_embeds_what_was_there_and_is_done_the_second_time(command: Command, db: Database) -> None:
    db.execute(ARTICLES)
    db.execute("INSERT INTO articles (title) SELECT 'old ' || i FROM generate_series(1, 500) i")
    register(db)
    assert queued(db) == []
    output = command("backfill", "articles.embedding").output
    assert "500 rows queued" in output
    assert "500 rows embedded, 0 failed, 0 still queued" in output
    assert broken(db, Hashing(dim=3)) == []
    assert "0 rows queued" in command("backfill").output
    assert "500 rows queued" in command("backfill", "--everything", "--queue-only").output
    assert len(queued(db)) == 500


def test_backfill_of_everything_takes_a_changed_model(command: Command, catalog: Engine, articles: Database) -> None:
    insert(articles, "one", "two")
    work(catalog, Scripted(fingerprint="of old weights"))
    articles.execute("INSERT INTO embeddb.query_cache SELECT id, 'q', '[1,2,3]' FROM embeddb.encoder")
    assert "2 rows embedded" in command("backfill", "--everything").output
    [(fingerprint,)] = articles.execute("SELECT fingerprint FROM embeddb.encoder").fetchall()
    assert fingerprint == Hashing(dim=3).fingerprint
    assert articles.execute("SELECT count(*) FROM embeddb.query_cache").fetchall() == [(0,)]


INDEXES = "SELECT indexname FROM pg_indexes WHERE tablename = 'articles' ORDER BY 1"


def test_indexes_are_dropped_when_asked_and_built_again(command: Command, catalog: Engine, db: Database) -> None:
    db.execute(ARTICLES)
    db.execute("CREATE INDEX by_cosine ON articles USING hnsw (embedding vector_cosine_ops) WITH (m=8)")
    db.execute('CREATE INDEX "By L2" ON articles USING hnsw ((embedding::halfvec(3)) halfvec_l2_ops)')
    db.execute("INSERT INTO articles (title) SELECT 'old ' || i FROM generate_series(1, 500) i")
    register(db, spec())
    before = db.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'articles' ORDER BY 1").fetchall()
    # A run that was killed after it had dropped them: the next goes on.
    [(embedding,)] = db.execute("SELECT id FROM embeddb.embedding").fetchall()
    with catalog.begin() as connection:
        assert sorted(drop_indexes(connection, [embedding])) == ['"By L2"', "by_cosine"]
    assert db.execute(INDEXES).fetchall() == [("articles_pkey",)]
    assert "by_cosine is dropped" in command("status").output
    command("backfill", "--rebuild-index")
    assert db.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'articles' ORDER BY 1").fetchall() == before
    assert db.execute("SELECT count(*) FROM embeddb.dropped_index").fetchall() == [(0,)]
    command("backfill")
    assert len(db.execute(INDEXES).fetchall()) == 3


def test_failures_are_listed_retried_and_forgotten(command: Command, catalog: Engine, articles: Database) -> None:
    insert(articles, "poison", "good", "poison [b]ark[/b]")
    work(catalog, Scripted())
    listed = command("failures", "list").output
    assert "articles.embedding" in listed
    assert "[/b]" in listed  # as it is, not as markup
    lines = [
        json.loads(line) for line in command("failures", "list", "articles.embedding", "--json").output.splitlines()
    ]
    assert [line["key"] for line in lines] in ([0, 2], [2, 0])
    assert any("[b]ark[/b]" in line["error"] for line in lines)
    assert "1 rows queued" in command("failures", "retry", "articles.embedding", "--key", "0").output
    assert (queued(articles), len(failures(articles))) == ([0], 1)
    assert (
        "no recorded failure of 99" in command("failures", "retry", "articles.embedding", "--key", "99", code=2).output
    )
    assert "1 failures forgotten" in command("failures", "forget").output
    assert "No failures" in command("failures", "list").output


def test_status(command: Command, catalog: Engine, articles: Database) -> None:
    insert(articles, "poison", "good")
    work(catalog, Scripted())
    articles.execute("INSERT INTO articles (id, title) VALUES (7, 'later')")
    articles.execute("INSERT INTO embeddb.worker (host, pid, version) VALUES ('a-host', 17, '1')")
    output = command("status").output
    assert "articles.embedding" in output
    assert "a-host:17" in output
    [line] = [line for line in output.splitlines() if line.strip().startswith("articles.embedding")]
    assert line.split()[4:8] == ["3", "1", "1", "1"], line


def test_a_worker_of_a_database_without_a_catalog(engine18: Engine) -> None:
    with pytest.raises(CatalogMissing):
        Worker(engine18).run(once=True)


def test_a_configuration_that_is_no_json(db: Database, command: Command) -> None:
    db.execute(ARTICLES)
    register(db)
    assert "is no JSON" in command("reembed", "articles.embedding", "--to", '{"type": "hashing"', code=2).output
