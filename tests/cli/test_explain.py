"""``embeddb explain`` against a real database."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typer.testing import CliRunner, Result

from embeddb import Vector, embedding_column, register
from embeddb.cli.main import build
from embeddb.encoders import Hashing


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    kind: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=Hashing(dim=64))


@pytest.fixture
def database(engine18: Engine) -> str:
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    return engine18.url.render_as_string(hide_password=False)


def explained(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["explain", *arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("target", ["memos.embedding", f"{__name__}:Memo.embedding"])
def test_in_words(database: str, target: str) -> None:
    result = explained(target, "flying boats", "-u", database)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "memos.embedding: " in result.output
    assert "exact" in result.output or "ix_memos_embedding_hnsw" in result.output
    assert "the statement asks for that" in explained(target, "boats", "-u", database, "--exact").output


def test_sql_filter_and_what_is_wrong(database: str) -> None:
    shown = explained("memos.embedding", "boats", "-u", database, "--where", "kind=b", "--recall", "0.99", "--sql")
    assert shown.exit_code == 0, (shown.output, shown.exception)
    assert "memos.kind = " in shown.output
    assert "Scan" in shown.output
    assert explained("memos.embedding", "boats", "-u", database, "--where", "no=1").exit_code == 2
    assert explained("memos.embedding", "boats", "-u", database, "--where", "id=1").exit_code == 0
    wrong = explained("memos.embedding", "boats", "-u", database, "--where", "id=abc")
    assert wrong.exit_code == 2
    assert "'id=abc': invalid input syntax for type integer" in wrong.output


@pytest.mark.parametrize("target", ["memos", "a.b.c.d", f"{__name__}:Memo", f"{__name__}:Memo.body"])
def test_what_is_no_embedding(database: str, target: str) -> None:
    wrong = explained(target, "boats", "-u", database)
    assert wrong.exit_code == 2
    assert "neither table.column" in wrong.output or "is no embedding: name its attribute" in wrong.output
