from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from embeddb.catalog.install import install
from embeddb.encoders.words import WordVectors
from embeddb.errors import EncoderError, SourceError
from embeddb.train.rows import register_encoder, texts

typer_testing = pytest.importorskip("typer.testing", reason="needs the extra embeddb[cli]")
pytest.importorskip("gensim", reason="needs the extra embeddb[words]")


@pytest.fixture
def articles(engine18: Engine) -> Engine:
    with engine18.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Odd"'))
        connection.execute(text('CREATE TABLE "Odd"."Articles" (id serial PRIMARY KEY, "the body" text)'))
        connection.execute(text("CREATE TABLE articles (id serial PRIMARY KEY, body text)"))
        for table in ("articles (body)", '"Odd"."Articles" ("the body")'):
            connection.execute(
                text(f"INSERT INTO {table} SELECT 'the king number ' || n || ' rules' FROM generate_series(1, 2500) n")
            )
            connection.execute(text(f"INSERT INTO {table} VALUES (NULL)"))
    return engine18


def test_texts_of_a_column_or_a_query(articles: Engine) -> None:
    with articles.connect() as connection:
        for name in ("articles.body", "public.articles.body", "Odd.Articles.the body"):
            found = list(texts(connection, name))
            assert len(found) == len(set(found)) == 2500
        query = text("SELECT body FROM articles WHERE id < 4 ORDER BY id")
        assert list(texts(connection, query)) == [f"the king number {n} rules" for n in (1, 2, 3)]
        for name, said in (
            ("articles.title", "has no column 'title', only id, body"),
            ("nothing.body", "there is no table 'nothing'"),
            ("articles", "neither table.column"),
            ("articles.", "neither table.column"),
            ("a.b.c.d", "neither table.column"),
        ):
            with pytest.raises(SourceError, match=said):
                list(texts(connection, name))


def test_a_table_with_vectors_is_read_without_warnings(articles: Engine) -> None:
    with articles.begin() as connection:
        connection.execute(text("ALTER TABLE articles ADD embedding public.vector(8), ADD half public.halfvec(8)"))
    script = "import sys; from embeddb.train.rows import column_of; from sqlalchemy import create_engine\n"
    script += "with create_engine(sys.argv[1]).connect() as connection: column_of(connection, 'articles.body')\n"
    url = articles.url.render_as_string(hide_password=False)
    # In a process of its own: here others have told SQLAlchemy of the types already.
    command = [sys.executable, "-W", "always", "-c", script, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Did not recognize" not in said.stderr


def test_rows_are_streamed(articles: Engine) -> None:
    """Through a cursor on the server: the first text comes before the last is made."""
    slow = "SELECT repeat('x', n) || pg_sleep(CASE WHEN n > 5000 THEN 60 ELSE 0 END) FROM generate_series(1, 9999) n"
    with articles.connect() as connection:
        found = texts(connection, text(slow))
        assert next(found) == "x"
        found.close()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("word2vec", ["--epochs", "1"]),
        ("fasttext", ["--epochs", "1", "--buckets", "500"]),
        ("glove", ["--epochs", "2"]),
    ],
)
def test_commands_train_write_and_register(articles: Engine, tmp_path: Path, command: str, options: list[str]) -> None:
    from embeddb.cli.train import app

    with articles.begin() as connection:
        install(connection)
    url = articles.url.render_as_string(hide_password=False)
    runner = typer_testing.CliRunner()

    def run(*arguments: str) -> Any:
        return runner.invoke(app, [*arguments, "--url", url, "--dim", "8", "--folder", str(tmp_path), *options])

    for _ in range(2):  # a second time over the first
        ran = run(command, "articles.body")
        assert ran.exit_code == 0, ran.output
    assert "4 words of 8 dimensions" in ran.output
    encoder = WordVectors(str(tmp_path))
    assert set(encoder.loaded.words) == {"the", "king", "number", "rules"}
    with articles.begin() as connection:
        found = connection.execute(text("SELECT config, dim, fingerprint FROM embeddb.encoder")).all()
        assert found == [(dict(encoder.config), 8, encoder.fingerprint)]
        assert register_encoder(connection, encoder)
        assert connection.scalar(text("SELECT count(*) FROM embeddb.encoder")) == 1
    assert isinstance(run(command, "articles.title").exception, SourceError)


def test_no_transaction_is_open_while_a_model_is_trained(articles: Engine) -> None:
    from embeddb.cli.train import _texts

    url = articles.url.render_as_string(hide_password=False)
    with _texts(url, None, "SELECT body FROM articles LIMIT 3") as (engine, found):
        assert len(list(found)) == 3
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            open_ = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            assert connection.scalar(text(open_)) == 0


def test_what_cannot_be_done_is_said_before_it_is_begun(articles: Engine, tmp_path: Path) -> None:
    from embeddb.cli.train import app

    (tmp_path / "file").touch()
    url = articles.url.render_as_string(hide_password=False)
    arguments = ["word2vec", "--url", url, "--folder", str(tmp_path / "file" / "model")]
    said = typer_testing.CliRunner().invoke(app, [*arguments, "articles.body"]).exception
    assert isinstance(said, EncoderError)
    assert "no model can be written there" in str(said)
    for neither in ([], ["articles.body", "--query", "SELECT 1"]):
        assert "--query instead of it" in typer_testing.CliRunner().invoke(app, [*arguments, *neither]).output


def test_adapting_vectors_from_elsewhere(articles: Engine, tmp_path: Path) -> None:
    from embeddb.cli.train import app

    (tmp_path / "glove.txt").write_text("king 1 2 3\nthe 4 5 6\nzebra 7 8 9\n")
    arguments = ["adapt", "articles.body", "--model", str(tmp_path / "glove.txt"), "--folder", str(tmp_path / "out")]
    url = articles.url.render_as_string(hide_password=False)
    ran = typer_testing.CliRunner().invoke(app, [*arguments, "--url", url])
    assert ran.exit_code == 0, ran.output
    assert "registered" not in ran.output  # there is no catalog
    words = WordVectors(str(tmp_path / "out")).loaded
    assert words.counts is not None
    assert words.counts.tolist() == [2500, 2500, 0]
