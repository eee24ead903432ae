"""Which words made a text match: those that do, in every metric, and of a row's text as it was embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, insert
from typer.testing import CliRunner

import embeddb
from embeddb import WordVectors
from embeddb.cli.main import build
from embeddb.encoders import Hashing, embed_documents
from embeddb.errors import NoEmbedding, QueryError
from embeddb.insight.match import explain_match, explain_row, words_of
from embeddb.insight.words import nearest_words
from tests.insight.conftest import Note, Word


@dataclass(frozen=True)
class Counting:
    """A vector of how often each of the letters a to d occurs; ``calls``: how many texts each call had."""

    modality: str = "text"
    dim: int = 4
    fingerprint: str = "letters"
    calls: list[int] = field(default_factory=list, compare=False)
    config: Any = field(default_factory=dict, compare=False)

    def encode_documents(self, inputs: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(len(inputs))
        counts = np.array([[text.count(letter) for letter in "abcd"] for text in inputs], np.float32)
        counts[~counts.any(axis=1)] = np.nan
        return counts

    encode_queries = encode_documents


def test_weights_are_what_the_score_loses() -> None:
    encoder: Any = Counting()
    found = dict(explain_match(encoder, "a", "aa b, AA aa c", metric="inner_product"))
    assert found == {"aa": 4, "b": 0, "c": 0}  # both of them are left out at once, whatever their case
    by_cosine = dict(explain_match(encoder, "a", "aa b"))
    assert by_cosine["aa"] == pytest.approx(2 / np.sqrt(5))
    assert by_cosine["b"] == pytest.approx(2 / np.sqrt(5) - 1)
    by_l2 = dict(explain_match(encoder, "a", "aa b", metric="l2"))
    assert by_l2["b"] == pytest.approx(1 / (1 + np.sqrt(2)) - 1 / 2)
    assert encoder.calls[0] == 4  # the text, and it without each of its three words, at once


def test_the_word_that_both_share_comes_first() -> None:
    text = "It's a well-known fact that the flying boat landed on the lake in winter."
    found = explain_match(Hashing(dim=1024), "which boat", text)
    assert found[0].word == "boat"
    assert found[0].weight > 3 * abs(found[3].weight)
    assert {word for word, _ in found} >= {"It's", "well-known", "lake"}
    assert [weight for _, weight in found] == sorted((weight for _, weight in found), reverse=True)
    assert embeddb.explain_match is explain_match


def test_what_is_nothing_without_a_word() -> None:
    [only] = explain_match(Hashing(dim=64), "boat", "boat!")
    assert only.word == "boat"
    assert only.weight == pytest.approx(1, abs=1e-5)
    with pytest.raises(NoEmbedding):
        explain_match(Hashing(dim=64), "boat", "!")
    encoder: Any = Counting(modality="image")
    with pytest.raises(QueryError, match="takes image"):
        explain_match(encoder, "a", "a")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("東京タワー 2020", ["東", "京", "タ", "ワ", "ー", "2020"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("x東y don’t", ["x", "東", "y", "don’t"]),
        ("ÜBER über", ["über"]),
        ("… —", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


def test_a_row(engine: Engine, url: str) -> None:
    match = explain_row(engine, "notes.embedding", "water boat", 3)
    assert match.text == "boat 3\nflying boats land on water"
    assert match.words == tuple(explain_match(Hashing(dim=32), "water boat", match.text))
    assert explain_row(engine, Note.embedding, "water boat", (3,)) == match
    arguments = ["why", "notes.embedding", "water boat", "--key", "3", "-u", url]
    result = CliRunner().invoke(build(), arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, (result.output, result.exception)
    [best] = [line for line in result.output.splitlines() if line.count("█") == 30]
    assert best.split()[0] == max(match.words, key=lambda word: abs(word.weight)).word


@pytest.mark.parametrize(
    ("key", "message"), [(99_999, "no row 99999"), ((1, 2), r"has the key \(id\), and 2 values"), (2000, "has no text")]
)
def test_rows_that_cannot_be_explained(engine: Engine, key: Any, message: str) -> None:
    with engine.begin() as connection:
        connection.execute(insert(Note).values(id=2000, title=" ", kind="none"))
        with pytest.raises(QueryError, match=message):
            explain_row(connection, "notes.embedding", "boat", key)
        connection.rollback()


def test_nearest_words_of_a_table_and_of_a_file(engine: Engine, tmp_path: Path) -> None:
    words = ["boat", "boats", "water", "bread", "breads"]
    made = embed_documents(Hashing(dim=256), words)
    with engine.begin() as connection:
        connection.execute(
            insert(Word), [{"word": word, "embedding": vector} for word, vector in zip(words, made, strict=True)]
        )
        for among in (Word.embedding, "words.embedding"):
            found = nearest_words(made[0], among, limit=2, bind=connection)
            assert [word for word, _ in found] == ["boat", "boats"]
            assert found[0].weight == pytest.approx(1, abs=1e-5)
            assert found[1].weight == pytest.approx(float(made[0] @ made[1]), abs=1e-5)
        connection.rollback()
    file = tmp_path / "words.txt"
    lines = (f"{word} {' '.join(map(str, vector))}\n" for word, vector in zip(words, made, strict=True))
    file.write_text(f"{len(words)} 256\n" + "".join(lines))
    assert [word for word, _ in nearest_words(made[3], WordVectors(str(file)), limit=2)] == ["bread", "breads"]
    with pytest.raises(QueryError, match="as bind"):
        nearest_words(made[0], "words.embedding")
