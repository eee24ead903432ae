"""The commands take a declared attribute too, and refuse what they cannot do before they do anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from embeddb.cli.main import build
from embeddb.errors import CatalogError, QueryError

DECLARED = "tests.insight.conftest:Note.embedding"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), list(arguments), env={"COLUMNS": "200"})


def test_a_declared_attribute_stands_for_its_column(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, told in (
        (("diagnose", DECLARED, "--sample", "100"), "notes.embedding"),
        (("advise", DECLARED, "--sample", "100", "--queries", "10"), "notes.embedding: vector(32), cosine"),
        (("why", DECLARED, "a boat", "--key", "3"), "score"),
        (("fit-pca", DECLARED, "--dim", "8"), "embeddb reembed notes.embedding"),
    ):
        done = run(*arguments, "--url", url)
        assert done.exit_code == 0, (done.output, done.exception)
        assert told in " ".join(done.output.split())
    assert (tmp_path / "pca-Note.embedding-8").is_dir()


@pytest.mark.parametrize("command", [("diagnose", "-o"), ("map", "-o"), ("advise", "--try", "--plot")])
def test_a_folder_that_is_not_there(command: tuple[str, ...], url: str, tmp_path: Path) -> None:
    name, *options = command
    done = run(name, "notes.embedding", "--url", url, *options, str(tmp_path / "none" / "file"))
    assert done.exit_code == 2
    assert "there is no folder" in done.output


def test_no_key_of_the_table(url: str) -> None:
    done = run("why", "notes.embedding", "boat", "--key", "three", "--url", url)
    assert isinstance(done.exception, QueryError)
    assert str(done.exception) == "three is no key of notes, which has (id INTEGER)"


def test_recall_of_what(url: str, engine18: Engine) -> None:
    done = run("recall", "--url", url)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "Nothing to measure" in done.output
    bare = run("recall", "--url", engine18.url.render_as_string(hide_password=False))
    assert isinstance(bare.exception, CatalogError)
    assert "package.module:Model.attribute" in str(bare.exception)
