"""Every SQL block of the guide for analysts runs, through psql, as the role that it is written for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment
from sqlalchemy import Engine

from embeddb.encoders import word_store
from embeddb.encoders.word_store import Words
from embeddb.encoders.words import WordVectors
from embeddb.insql import install_words
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from tests.catalog.application import Database, queued, register

GUIDE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text("utf-8")
BLOCK = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
SECTIONS = [(part.partition("\n")[0], part) for part in GUIDE.split("\n## ")]
BLOCKS = [(title, match[1]) for title, part in SECTIONS for match in BLOCK.finditer(part)]
WORDS = ("planes", "land", "water", "boats", "flying", "military", "cars", "road")


@pytest.fixture
def articles(catalog: Engine, db: Database, tmp_path: Path) -> Iterator[Database]:
    """300 articles, embedded by the database itself; ``analyst`` may read them."""
    vectors = np.random.default_rng(5).standard_normal((len(WORDS), 6)).astype(np.float32)
    word_store.write(tmp_path / "words", Words(list(WORDS), vectors))
    encoder = WordVectors(str(tmp_path / "words"), weighting="mean")
    db.execute(
        "CREATE TABLE articles (id bigint PRIMARY KEY, title text, body text, year int, kind text, embedding vector(6))"
    )
    with catalog.begin() as connection:
        install_words(connection, encoder, name="words")
    register(
        db,
        EmbeddingSpec(table="articles", column="embedding", sources=("title", "body"), encoder=encoder.config, dim=6),
    )
    db.execute(
        "INSERT INTO articles SELECT i, w[mod(i, 8) + 1] || ' ' || w[mod(i, 5) + 1], w[mod(i, 3) + 1],"
        " 1920 + mod(i, 40),"
        " (ARRAY['note', 'paper', 'report'])[mod(i, 3) + 1] FROM generate_series(1, 300) i, (SELECT %s::text[]) x (w)",
        [list(WORDS)],
    )
    db.execute("CREATE ROLE analyst; SELECT embeddb.grant_reader('analyst'); GRANT SELECT ON articles TO analyst")
    yield db
    db.execute("DROP OWNED BY analyst; DROP ROLE analyst; DROP TABLE articles; SELECT embeddb.unregister(id)"
               " FROM embeddb.embedding; DELETE FROM embeddb.encoder")  # fmt: skip


def as_the_tool_sends_it(title: str, block: str, filled: bool) -> str:
    """Metabase's variables as parameters, text or numbers; Superset's templates by Jinja, as it renders them.

    What an analyst may leave empty is so unless ``filled``.
    """
    if title == "In Metabase":
        block = re.sub(r"\[\[(.*?)\]\]", r"\1" if filled else "", block)
        for name, value in (("query", "'planes that land on water'"), ("kind", "'note'"), ("since", "1930")):
            block = block.replace(f"{{{{{name}}}}}", value)
    elif title == "In Superset":
        environment = Environment(autoescape=False)  # noqa: S701  # SQL, not HTML
        environment.filters["where_in"] = lambda values: "(" + ", ".join(f"'{value}'" for value in values) + ")"
        functions = {
            "url_param": lambda name: "planes that land on water",
            "filter_values": lambda name: ["note", "paper"] if filled else [],
        }
        block = environment.from_string(block).render(functions)
    return block


def test_every_block_runs(articles: Database, server: LocalPostgres) -> None:
    """As the analyst, who is answered; what is for the owner as the owner."""
    assert len(BLOCKS) > 12
    articles.execute("CALL embeddb.drain()")
    templates = [(title, block) for title, block in BLOCKS if title in ("In Metabase", "In Superset")]
    assert len(templates) == 3
    for title, block, filled in [(*one, True) for one in BLOCKS] + [(*one, False) for one in templates]:
        role = "postgres" if title == "For the owner" else "analyst"
        command = [str(server.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", str(articles.info.host)]
        ran = subprocess.run(
            [*command, "-U", "postgres", articles.info.dbname],
            input=f"SET ROLE {role};\n{as_the_tool_sends_it(title, block, filled)}\n;",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), (block, ran.stderr)
        empty = "FROM embeddb.workers" in block or "problems" in block or "GRANT" in block
        assert ran.stdout.strip() or empty, block
    assert queued(articles) == []
