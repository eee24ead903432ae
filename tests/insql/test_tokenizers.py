"""The tokenisers in SQL make the ids that the library makes, over all of Unicode, or refuse."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embeddb.insql import install_transformer, remove_transformer
from tests.insql.conftest import InSQL
from tests.insql.small_models import Models

#: Texts as people write them, and texts of anything; Postgres holds neither NUL nor halves of surrogate pairs.
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
HARD = st.lists(
    st.sampled_from(
        [
            *("running", "Héllo", "İstanbul", "straße", "ﬁne", "東京", "한국어", "ไทย", "हिन्दी", "e\u0301", "don't"),
            *("we'll", "''re", "3.14", "x²", "½", "😀", "👩\u200d💻", "...", "–", "¿", "_", "##ing", "a" * 101),
            *(" ", "  ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\x7f", "\x01"),
            *("[SEP]", "[MASK]", "<mask>", " <mask>", "</s>", "[sep]", "\ufeff", "\ufffd", "\u00ad"),
            *("\u0b95\u0bca", "\U0001d160", "\u1b44", "\u0c3c"),
        ]
    ),
    max_size=12,
).map("".join)


def ids(db: psycopg.Connection[Any], name: str, text: str) -> list[int] | None:
    """By SQL; None where the text is refused."""
    try:
        [(found,)] = db.execute(
            "SELECT embeddb.tokenize(t, %s) FROM embeddb.transformer t WHERE t.name = %s", [text, name]
        ).fetchall()
    except psycopg.Error as error:
        if error.sqlstate != "EB004":
            raise
        return None
    return list(found)


def is_movable(text: str) -> bool:
    """Whether two combining marks are neighbours: what may be refused."""
    return sum(unicodedata.combining(c) > 0 for c in unicodedata.normalize("NFD", text)) > 1


@pytest.fixture(params=["minilm", "roberta", "cased"])
def tokenizer(request: pytest.FixtureRequest, insql18: InSQL, models: Models) -> Iterator[tuple[str, Any]]:
    """A name in SQL, and the library's tokeniser."""
    name: str = request.param
    if name == "minilm":
        yield name, insql18.encoder.opened()[0].tokenizer
        return
    encoder = models.encoder("roberta") if name == "roberta" else models.encoder("bert", cased=True)
    with insql18.engine.begin() as connection:
        install_transformer(connection, encoder, name=name)
    yield name, encoder.opened()[0].tokenizer
    with insql18.engine.begin() as connection:
        remove_transformer(connection, name)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY | HARD)
@example("")
@example("a" * 300)
@example("The  quick\u00a0brown\tfox — 20% off!\n")
def test_same_ids_as_the_library(insql18: InSQL, tokenizer: tuple[str, Any], text: str) -> None:
    name, library = tokenizer
    found = ids(insql18.db, name, text)
    if found is None:
        assert is_movable(text)
    else:
        longest = 256 if name == "minilm" else 48
        assert found == library(text, truncation=True, max_length=longest)["input_ids"]


def test_long_texts_are_read_as_far_as_the_model_does(insql18: InSQL, tokenizer: tuple[str, Any]) -> None:
    """In time that does not grow with the square of their length: a sentence without blanks is one word to some."""
    name, library = tokenizer
    longest = 256 if name == "minilm" else 48
    insql18.db.execute("SET statement_timeout = '20s'")
    for text in (
        "東京タワーはとても高いです。" * 2000,
        "naïve cats sat on the mat, weren't they?  \n" * 3000,
        "\x01" * 20_000 + " the cat",
        "[SEP]</s>" * 3000,
        ("a" * 9000 + " ") * 3,
        "." * 30_000,
        "x\u3000  " * 8000,
    ):
        assert ids(insql18.db, name, text) == library(text, truncation=True, max_length=longest)["input_ids"]
    insql18.db.execute("RESET statement_timeout")


@pytest.mark.filterwarnings("ignore:Token indices")
def test_every_character_by_itself(insql18: InSQL, minilm: Any) -> None:
    """Between letters, a thousand at a time: too long for the model, so without what cuts and surrounds it."""
    library = minilm.opened()[0].tokenizer
    points = [p for p in range(1, 0x30000) if not 0xD800 <= p < 0xE000 and not is_movable(chr(p))]
    for start in range(0, len(points), 6000):
        text = "".join(f"a{chr(p)}b " for p in points[start : start + 6000])
        [(found,)] = insql18.db.execute(
            "SELECT embeddb.token_ids(jsonb_populate_record(t, '{\"max_tokens\": 1000000}'), %s)"
            " FROM embeddb.transformer t WHERE t.name = 'minilm'",
            [text],
        ).fetchall()
        assert found == library(text, add_special_tokens=False, truncation=False)["input_ids"]


def test_what_cannot_be_exact_is_refused(insql18: InSQL) -> None:
    """The library sorts these two marks, of classes 9 and 7."""
    assert ids(insql18.db, "minilm", "\u1b44\u0c3c") is None
