"""Word vectors in SQL: for every text what the Python encoder says."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine

from embeddb.catalog.install import install
from embeddb.encoders import word_store
from embeddb.encoders.subwords import Subwords
from embeddb.encoders.word_store import Words
from embeddb.encoders.word_tokens import tokens
from embeddb.encoders.words import WordVectors
from embeddb.errors import CatalogError, EncoderError
from embeddb.insql import Fast, install_words, installed_fast, remove_fast
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from tests.catalog.application import Database, connect, register
from tests.conftest import fresh_database

WORDS = ["the", "of", "king", "Paris", "paris", "naïve", "straße", "東京", "½", "a", "é", "ss", "مرحبا", "1", "don't"]
DIM = 6


def _words(seed: int, **others: Any) -> Words:
    vectors = np.random.default_rng(seed).standard_normal((len(WORDS), DIM)).astype(np.float32)
    return Words(WORDS, vectors, **others)


def _component(seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal(DIM)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


def _subwords(shortest: int, longest: int) -> Subwords:
    return Subwords(np.random.default_rng(9).standard_normal((50, DIM)).astype(np.float32), shortest, longest)


@dataclass(frozen=True)
class Static:
    engine: Engine
    db: Database
    encoders: dict[str, WordVectors]
    installed: dict[str, Fast]

    def in_sql(self, name: str, text: str) -> NDArray[np.float32] | None:
        [(said,)] = self.db.execute(
            "SELECT embeddb.fast_embed(f, %s)::text FROM embeddb.fast_encoder f WHERE f.name = %s", [text, name]
        ).fetchall()
        return None if said is None else np.array(json.loads(said), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module", params=[16, 18], ids=["pg16", "pg18"])
def static(request: pytest.FixtureRequest, folder: Path) -> Iterator[Static]:
    """Encoders of every kind, installed under their names."""
    server: LocalPostgres = request.getfixturevalue(f"server{request.param}")
    counts = np.arange(len(WORDS), 0, -1, dtype=np.int64) ** 2
    word_store.write(folder / "plain", _words(0))
    word_store.write(folder / "sif", _words(1, counts=counts, component=_component(1)))
    parts = {"counts": counts, "component": _component(2)}
    word_store.write(folder / "parts", _words(2, subwords=_subwords(1, 3), **parts))
    word_store.write(folder / "fasttext", _words(3, subwords=_subwords(3, 6)))
    encoders = {
        "plain": WordVectors(str(folder / "plain"), weighting="mean", normalize=False),
        "sif": WordVectors(str(folder / "sif")),
        "parts": WordVectors(str(folder / "parts")),
        "fasttext": WordVectors(str(folder / "fasttext"), weighting="mean"),
        "strict": WordVectors(str(folder / "sif"), unknown="error"),
    }
    with fresh_database(server) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            install(connection)
            installed = {name: install_words(connection, one, name=name) for name, one in encoders.items()}
        with connect(engine) as db:
            yield Static(engine, db, encoders, installed)
        engine.dispose()


#: Words that are known, letters that case folding and normalisation change, and everything else.
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [*WORDS, "KING", "ＰＡＲＩＳ", "STRASSE", "ﬁ", "ǰ", "e\u0301", "İ", "ς", "ͅ", "각", "ᾳ", "\u0344"]
        ),
        st.sampled_from(" -'_.\t\n\u00a0\u3000½²ⅷ①"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("name", ["plain", "sif", "parts", "fasttext"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_equal_to_the_python_encoder(static: Static, name: str, text: str) -> None:
    expected = static.encoders[name].encode_queries([text])[0]
    found = static.in_sql(name, text)
    if found is None:
        assert np.isnan(expected).all()
    else:
        assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("kind", ["glove.txt", "word2vec.txt", "word2vec.bin", "facebook.bin"])
def test_models_of_others(static: Static, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("EMBEDDB_CACHE", str(tmp_path))
    file = tmp_path / kind
    fasttext = importlib.import_module("gensim.models.fasttext")
    corpus = [["the", "king", "of", "paris"], ["naïve", "straße", "東京", "the"]] * 5
    model = fasttext.FastText(corpus, vector_size=DIM, min_count=1, bucket=100, epochs=1, seed=1, workers=1)
    if kind == "facebook.bin":
        fasttext.save_facebook_model(model, str(file))
    else:
        model.wv.save_word2vec_format(str(file), binary=kind == "word2vec.bin", write_header=kind != "glove.txt")
    encoder = WordVectors(str(file))
    with static.engine.begin() as connection:
        fast = install_words(connection, encoder)
    assert fast.name == Path(kind).stem
    for text in ("The naïve King of 東京!", "STRASSE", "kingdom of parisians", "zzz"):
        found, [expected] = static.in_sql(fast.name, text), encoder.encode_queries([text])
        assert (found is None) == bool(np.isnan(expected).all())
        if found is not None:
            assert np.abs(found - expected).max() < 1e-5
    with static.engine.begin() as connection:
        remove_fast(connection, fast.name)


def test_every_character_is_taken_as_python_takes_it(static: Static) -> None:
    """Every one that Python's Unicode knows, between two known words: are they parted, and what else is there?"""
    rows = static.db.execute(
        "SELECT p, embeddb.fast_words(f, 'A' || chr(p) || 'e' || chr(769)) FROM embeddb.fast_encoder f,"
        " generate_series(1, 70000) p WHERE f.name = 'plain' AND p NOT BETWEEN 55296 AND 57343"
        " AND NOT EXISTS (SELECT FROM embeddb.fast_character c WHERE c.fast = f.id AND c.becomes IS NULL"
        " AND p BETWEEN c.first AND c.last)"
    ).fetchall()
    assert len(rows) > 60_000
    assert [(p, words) for p, words in rows if words != tokens(f"A{chr(p)}e\u0301")] == []


def test_a_word_that_is_not_known_can_be_an_error(static: Static) -> None:
    assert static.in_sql("strict", "the king") is not None
    with pytest.raises(psycopg.Error, match="strict does not know the word 'queen'") as raised:
        static.in_sql("strict", "the king, the queen")
    assert raised.value.sqlstate == "EB004"


def test_a_text_without_a_known_word_is_null(static: Static) -> None:
    assert static.in_sql("sif", "nothing here") is None
    assert static.in_sql("sif", "") is None
    assert static.in_sql("sif", "—!") is None


def test_what_the_server_does_not_know_is_refused(static: Static) -> None:
    static.db.execute(
        "UPDATE embeddb.fast_character SET becomes = NULL FROM embeddb.fast_encoder f"
        " WHERE f.id = fast AND f.name = 'fasttext' AND stage = 1 AND first = (SELECT min(c.first)"
        " FROM embeddb.fast_character c WHERE c.fast = f.id AND c.stage = 1)"
    )
    with pytest.raises(psycopg.Error, match=r"by fasttext: .* is newer than this server's Unicode"):
        static.in_sql("fasttext", f"king {chr(0x378)}")


def test_embed_takes_word_vectors_as_exact_and_evaluates_once(static: Static) -> None:
    """Over 10,000 rows without an index, Postgres calls embed once a row; the encoder runs once."""
    db, encoder = static.db, static.encoders["sif"]
    db.execute(f"CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector({DIM}))")
    spec = EmbeddingSpec(
        table="notes", column="embedding", sources=("body",), encoder=encoder.config, dim=DIM, index=None
    )
    register(db, spec)
    db.execute(
        "INSERT INTO notes SELECT n, '', ARRAY[n % 7 - 3.5, 1, n % 11, 0.5, n % 3, 2]::real[]::vector"
        " FROM generate_series(1, 10000) n; SET track_functions = 'pl'; BEGIN"
    )
    for mode in ("", ", 'exact'", ", 'fast'"):
        [(said,)] = db.execute(f"SELECT embeddb.embed('notes.embedding', 'The King of Paris'{mode})::text").fetchall()
        expected = encoder.encode_queries(["The King of Paris"])[0]
        assert np.abs(np.array(json.loads(said)) - expected).max() < 1e-5
    counted = "SELECT pg_stat_get_xact_function_calls('embeddb.fast_tokens(embeddb.fast_encoder, text)'::regprocedure)"
    [(before,)] = db.execute(counted).fetchall()
    nearest = db.execute(
        "SELECT id FROM notes ORDER BY embedding <=> embeddb.embed('notes.embedding', 'a king in Paris'), id LIMIT 1"
    ).fetchall()
    [(after,)] = db.execute(counted).fetchall()
    assert after - before == 1
    assert (
        nearest
        == db.execute(
            "SELECT id FROM notes ORDER BY embedding <=> %s::vector, id LIMIT 1",
            [json.dumps(encoder.encode_queries(["a king in Paris"])[0].tolist())],
        ).fetchall()
    )
    db.execute("COMMIT")


def test_another_version_of_the_encoder_is_not_mixed_with_it(static: Static) -> None:
    """Neither its words' vectors nor what it had embedded is used any more."""
    db = static.db
    db.execute("CREATE TABLE pages (id int PRIMARY KEY, body text, embedding vector(6))")
    spec = EmbeddingSpec(
        table="pages",
        column="embedding",
        sources=("body",),
        encoder=static.encoders["parts"].config,
        dim=DIM,
        index=None,
    )
    register(db, spec)
    db.execute("SELECT embeddb.remember('pages.embedding', 'x', '[1,2,3,4,5,6]')")
    embed = "SELECT embeddb.embed('pages.embedding', 'x')::text"
    assert db.execute(embed).fetchall() == [("[1,2,3,4,5,6]",)]
    db.execute("SELECT embeddb.register(%s::jsonb, 'newer')", [spec.to_json()])
    with pytest.raises(psycopg.Error, match="cannot embed") as raised:
        db.execute(embed)
    assert "of an older version of its encoder" in str(raised.value.diag.message_detail)


def test_installed_again_listed_and_removed(static: Static) -> None:
    words = static.encoders["plain"]
    with static.engine.begin() as connection:
        again = install_words(connection, words, name="other name")
        found = {fast.name: fast for fast in installed_fast(connection)}
        assert "plain" not in found
        assert found["other name"] == again
        assert (again.tokens, again.half, again.embedding, again.tokenizer) == (12, False, None, "words")
        with pytest.raises(CatalogError, match="another fast encoder here is called 'sif'"):
            install_words(connection, words, name="sif")
    with static.engine.begin() as connection:
        remove_fast(connection, "other name")
        with pytest.raises(CatalogError, match="no fast encoder here is called 'plain'; there are: "):
            remove_fast(connection, "plain")


def test_what_does_not_fit_on_a_page_is_refused(static: Static, tmp_path: Path) -> None:
    word_store.write(tmp_path, Words(["a", "b"], np.ones((2, 2000), np.float32)))
    with static.engine.begin() as connection, pytest.raises(EncoderError, match="2000 dimensions do not fit on a page"):
        install_words(connection, WordVectors(str(tmp_path)))
