from __future__ import annotations

import gzip
import itertools
import json
import pickle
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import Engine, MetaData, Table, Text, insert, select
from sqlalchemy.schema import Column

from embeddb.encoders import embed_documents, from_config, word_files, word_store
from embeddb.encoders.word_store import Words
from embeddb.encoders.word_tokens import fold, tokens, word_ranges
from embeddb.encoders.words import WordVectors
from embeddb.errors import EncoderError
from embeddb.orm.types import VECTOR
from embeddb.train.words import adapt, convert

WORDS = [
    "the",
    "of",
    "king",
    "queen",
    "man",
    "woman",
    "Paris",
    "paris",
    "new york",
    "don't",
    "naïve",
    "東京",
    "10 20",
    "½",
]


def _some(words: list[str] = WORDS, dim: int = 5, **others: Any) -> Words:
    vectors = np.random.default_rng(0).standard_normal((len(words), dim)).astype(np.float32)
    return Words(words, vectors, **others)


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: it's 10.5 km!", ["don", "t", "panic", "it", "s", "10", "5", "km"]),
        ("snake_case, UPPER-case", ["snake", "case", "upper", "case"]),
        ("Straße ΣΊΣΥΦΟΣ ﬁne", ["strasse", "σίσυφοσ", "fine"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("東京へ行く 2024年", ["東京へ行く", "2024年"]),
        ("x² ½ Ⅳ", ["x2", "1", "2", "iv"]),
        (" \u200b—…\n", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text(max_size=60))
def test_tokens_are_what_their_definition_says(text: str) -> None:
    """Character by character, by the category that Python's own Unicode tables give."""
    expected, run = [], ""
    for character in [*unicodedata.normalize("NFKC", text).casefold(), " "]:
        if unicodedata.category(character)[0] in "LMN":
            run += character
        elif run:
            expected.append(run)
            run = ""
    assert tokens(text) == expected
    assert all(fold(token) for token in tokens(text))


def test_word_ranges_are_disjoint_and_ascending() -> None:
    ranges = word_ranges()
    assert all(first <= last for first, last in ranges)
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges))


# --- files -------------------------------------------------------------------------------------------------------


_TOKENS = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1, max_size=8)
_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_glove_file_goes_round_exactly(tmp_path: Path, data: st.DataObject) -> None:
    """Any word, spaces and numbers in it too, and any vector, to the last bit; the file again to the last byte."""
    dim = data.draw(st.integers(1, 6))
    words = data.draw(st.lists(_TOKENS.filter(lambda word: not word.startswith(" ")), min_size=1, unique=True))
    vectors = np.array([data.draw(st.lists(_FLOATS, min_size=dim, max_size=dim)) for _ in words], np.float32)
    # At least one word that is no number, or nothing says where the vectors begin.
    words[0], file = "the" if "the" not in words else words[0], tmp_path / "glove.txt"
    if not any(word_files._NUMBER.fullmatch(word.split(" ")[-1].encode()) is None for word in words):
        words[0] = "word"
    word_files.write_text(file, words, vectors)
    found = word_files.read(file)
    assert list(found.words) == words
    np.testing.assert_array_equal(found.vectors.view(np.uint32), vectors.view(np.uint32))
    again = tmp_path / "again.txt"
    word_files.write_text(again, found.words, found.vectors)
    assert again.read_bytes() == file.read_bytes()


def _binary(words: Words, *, line_breaks: bool) -> bytes:
    head = f"{len(words.words)} {words.vectors.shape[1]}\n".encode()
    pairs = zip(words.words, words.vectors, strict=True)
    return head + b"".join(
        word.replace(" ", "_").encode() + b" " + vector.tobytes() + b"\n" * line_breaks for word, vector in pairs
    )


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    words = _some()
    word_files.write_text(tmp_path / "glove.txt", words.words, words.vectors)
    word_files.write_text(tmp_path / "vectors.vec", words.words, words.vectors, header=True)
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress((tmp_path / "glove.txt").read_bytes()))
    (tmp_path / "w2v.bin").write_bytes(_binary(words, line_breaks=False))
    (tmp_path / "breaks.bin").write_bytes(_binary(words, line_breaks=True))
    word_store.write(tmp_path / "folder", words)
    expected = WordVectors(str(tmp_path / "folder")).encode_documents(["the queen of Paris"])
    prints = set()
    for name in ("glove.txt", "vectors.vec", "glove.txt.gz", "w2v.bin", "breaks.bin", "folder"):
        encoder = WordVectors(str(tmp_path / name))
        assert encoder.dim == 5
        np.testing.assert_array_equal(encoder.encode_documents(["the queen of Paris"]), expected, err_msg=name)
        assert [word.replace("_", " ") for word in encoder.loaded.words] == WORDS
        prints.add(encoder.fingerprint)
    assert len(prints) == 2  # in the binary format a space becomes an underscore


def test_a_binary_file_that_goes_on_after_its_words_is_refused(tmp_path: Path) -> None:
    numbers = np.ones(2, np.float32).tobytes()
    (tmp_path / "w2v.bin").write_bytes(b"2 2\nking " + numbers + b"new york " + numbers)
    with pytest.raises(EncoderError, match="goes on after 2 words: one holds a space"):
        WordVectors(str(tmp_path / "w2v.bin")).encode_documents(["king"])


def test_vectors_are_mapped_and_read_only(tmp_path: Path) -> None:
    word_store.write(tmp_path / "folder", _some(counts=np.arange(1, 15)))
    found = WordVectors(str(tmp_path / "folder")).loaded
    base: Any = found.vectors
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.vectors[0] = 1
    np.testing.assert_array_equal(found.vectors, _some().vectors)
    from safetensors.numpy import load_file

    same = load_file(tmp_path / "folder" / "model.safetensors")
    np.testing.assert_array_equal(found.vectors, same["vectors"])
    assert found.counts is not None
    np.testing.assert_array_equal(found.counts, same["counts"])


class _Runs:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_are_refused_with_a_remedy(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "model.kv").write_bytes(pickle.dumps(_Runs(str(tmp_path / "ran")), protocol))
    with pytest.raises(EncoderError, match=r"is a pickle.*convert it once"):
        WordVectors(str(tmp_path / "model.kv")).encode_documents(["the"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no word vectors"),
        (b"the cat sat on the mat\n", "holds no word vectors"),
        (b"a 1 2 3\nb 1 2 3\nc 1 2", "line 3: it does not end in 3"),
        (b"a 1 2 3\n" * 2000 + b"b 1 x 3\n", "line 2001: it does not end in 3 numbers"),
        (b"a 1 nan 3\n", "NaN or infinity"),
        (b"5 3\na 1 2 3\n", "ends after 1 of 5 words"),
        (b"99999999999 3\na 1 2 3\n", "ends after 1 of"),
        (b"2 99999999\na " + bytes(50), "claims vectors of 99999999"),
        (b"3 4\na " + struct.pack("<4f", 1, 2, 3, 4) + b"b \0\0", "ends after 1 of 3 words"),
        (b"\x93NUMPY\x01\x00", "belongs to a pickle"),
        (b"PK\x03\x04" + bytes(50), "unzip it"),
        (b"\xba\x16O/\x0b\x00\x00\x00\x0a\x00\x00\x00" + bytes(60), "as an unsupervised FastText"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, said: str) -> None:
    pytest.importorskip("gensim", reason="reads FastText's files")
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(EncoderError, match=said):
        WordVectors(str(tmp_path / "file"), unknown="error").encode_documents(["zzz"])


def test_a_damaged_folder(tmp_path: Path) -> None:
    word_store.write(tmp_path, _some())
    whole = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (whole[:4], whole[:200], b"\xff" * 300, whole[:8] + b"{" * 100):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(EncoderError, match="cannot be read"):
            WordVectors(str(tmp_path)).encode_documents(["the"])
    with pytest.raises(EncoderError, match="no such file"):
        WordVectors(str(tmp_path / "absent")).encode_documents(["the"])


# --- the vector of a text -----------------------------------------------------------------------------------------


def test_sif_by_hand(tmp_path: Path) -> None:
    counts = np.array([100, 50, *range(14, 2, -1)])
    component = np.array([0.6, 0.8, 0, 0, 0], np.float32)
    words = _some(counts=counts, component=component, smoothing=0.01)
    word_store.write(tmp_path, words)
    rows = [WORDS.index(word) for word in ("the", "queen", "of", "Paris", "the")]
    weights = 0.01 / (0.01 + counts[rows] / counts.sum())
    expected = (weights[:, None] * words.vectors[rows]).sum(0) / 5
    expected -= component * (expected @ component)
    text = "The QUEEN of Paris (unknown) — the"
    encoder = WordVectors(str(tmp_path), normalize=False)
    np.testing.assert_allclose(encoder.encode_documents([text])[0], expected, atol=1e-6)
    unit = WordVectors(str(tmp_path)).encode_documents([text])[0]
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected), atol=1e-6)
    mean = WordVectors(str(tmp_path), weighting="mean", normalize=False)
    np.testing.assert_allclose(mean.encode_documents([text])[0], words.vectors[rows].mean(0), atol=1e-6)
    # The table holds all that is needed to do the same elsewhere.
    table = encoder.table
    places = {word: place for place, word in enumerate(table.words)}
    found = table.vectors[[places[token] for token in tokens(text) if token in places]].mean(0)
    assert table.component is not None
    found -= table.component * (found @ table.component)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_unknown_words(tmp_path: Path) -> None:
    word_store.write(tmp_path, _some())
    texts = ["king", "zebra king", "zebra", ""]
    vectors = embed_documents(WordVectors(str(tmp_path)), texts)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.isnan(vectors[2:]).all()
    with pytest.raises(EncoderError, match="'zebra'") as caught:
        embed_documents(WordVectors(str(tmp_path), unknown="error"), texts)
    assert caught.value.position == 1
    with pytest.raises(EncoderError, match="unknown one of"):
        WordVectors(str(tmp_path), unknown="guess")  # type: ignore[arg-type]  # as a user may


def test_a_text_that_is_only_what_all_have_in_common_has_no_embedding(tmp_path: Path) -> None:
    vectors = np.array([[2, 0], [0, 1]], np.float32)
    word_store.write(tmp_path, Words(["common", "rare"], vectors, component=np.array([1, 0], np.float32)))
    found = WordVectors(str(tmp_path)).encode_documents(["common", "common rare"])
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [0, 1])


def test_words_without_counts_are_weighed_by_rank(tmp_path: Path) -> None:
    word_store.write(tmp_path, _some())
    weights = WordVectors(str(tmp_path)).loaded.weights
    ranks = 1 / np.arange(1, 15)
    np.testing.assert_allclose(weights, 1e-3 / (1e-3 + ranks / ranks.sum()), rtol=1e-6)
    assert (np.diff(weights) > 0).all()


def test_configuration_and_fingerprint(tmp_path: Path) -> None:
    word_store.write(tmp_path / "a", _some())
    word_store.write(tmp_path / "b", _some())
    encoder = WordVectors(str(tmp_path / "a"), unknown="skip")
    assert from_config(json.loads(json.dumps(encoder.config))) == encoder
    assert encoder.fingerprint == WordVectors(str(tmp_path / "b"), unknown="skip").fingerprint
    word_store.write(tmp_path / "b", _some(smoothing=0.1))
    assert encoder.fingerprint != WordVectors(str(tmp_path / "b"), unknown="skip").fingerprint
    assert encoder.fingerprint != WordVectors(str(tmp_path / "a")).fingerprint


# --- gensim --------------------------------------------------------------------------------------------------------


def test_subwords_are_fasttexts_own(tmp_path: Path) -> None:
    utils = pytest.importorskip("gensim.test.utils", reason="gensim carries a FastText file")
    from gensim.models.fasttext import load_facebook_vectors

    file = utils.datapath("lee_fasttext_new.bin")
    theirs = load_facebook_vectors(file)
    ours = WordVectors(file)
    for word in ("zebraish", "ünïcode", "日本語", "australiaaa", "x"):
        assert word not in theirs.key_to_index
        if len(f"<{word}>") >= 3:
            np.testing.assert_array_equal(ours.vector(word), theirs.get_vector(word))
    known = ours.vector("australia" if "australia" in theirs.key_to_index else "the")
    assert known.shape == (10,)
    vectors = embed_documents(ours, ["zebraish", "!"])
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1]).all()
    assert np.isnan(embed_documents(WordVectors(file, unknown="skip"), ["zebraish"])).all()


def test_what_gensim_holds_is_converted(tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="it is gensim's")
    keyed = models.KeyedVectors(5)
    keyed.add_vectors(WORDS, _some().vectors)
    keyed.save(str(tmp_path / "theirs.kv"))
    with pytest.raises(EncoderError, match="is a pickle"):
        WordVectors(str(tmp_path / "theirs.kv")).encode_documents(["the"])
    found = convert(keyed, tmp_path / "ours").loaded
    np.testing.assert_array_equal(found.vectors, _some().vectors)
    assert found.counts is None
    with pytest.raises(EncoderError, match="neither gensim's"):
        convert(object(), tmp_path / "nothing")


def test_sif_fitted_to_texts(tmp_path: Path) -> None:
    word_files.write_text(tmp_path / "glove.txt", WORDS, _some().vectors)
    texts = ["the king of the man", "the queen of the woman", "paris", "nothing known"] * 3
    adapted = adapt(tmp_path / "glove.txt", iter(texts), tmp_path / "adapted", smoothing=0.1)
    words = adapted.loaded
    assert words.counts is not None
    assert words.component is not None
    assert dict(zip(words.words, words.counts.tolist(), strict=True))["the"] == 12
    vectors = WordVectors(str(tmp_path / "adapted"), normalize=False).encode_documents(texts[:3])
    np.testing.assert_allclose(vectors @ words.component, 0, atol=1e-6)
    with pytest.raises(EncoderError, match="none of the words"):
        adapt(tmp_path / "glove.txt", ["zzz"], tmp_path / "none")


# --- words as rows ---------------------------------------------------------------------------------------------------


def test_a_table_of_words_answers_analogies(tmp_path: Path, engine18: Engine) -> None:
    """Nearest words and analogies by SQL, as by ``nearest_words``."""
    royal, female = np.eye(4)[0], np.eye(4)[1]
    named = {
        "king": royal,
        "queen": royal + female,
        "man": np.eye(4)[2],
        "woman": np.eye(4)[2] + female,
        "apple": np.eye(4)[3],
        "prince": royal + 0.3 * np.eye(4)[3],
    }
    word_store.write(tmp_path, Words(list(named), np.array(list(named.values()), np.float32)))
    encoder = WordVectors(str(tmp_path))
    asked = ("man", "woman", "king")
    vector = encoder.analogy(*asked)
    best = encoder.nearest_words(vector, limit=3, exclude=asked)
    assert best[0].word == "queen"
    assert encoder.nearest_words("king", limit=1)[0].word == "prince"
    table = Table("words", MetaData(), Column("word", Text, primary_key=True), Column("vector", VECTOR(4)))
    table.create(engine18)
    with engine18.begin() as connection:
        loaded = encoder.loaded
        rows = [{"word": word, "vector": row} for word, row in zip(loaded.words, loaded.vectors, strict=True)]
        connection.execute(insert(table), rows)
        distance = table.c.vector.cosine_distance(vector)
        nearest = select(table.c.word, 1 - distance).where(table.c.word.not_in(asked)).order_by(distance).limit(3)
        found = connection.execute(nearest).all()
    assert [row[0] for row in found] == [neighbour.word for neighbour in best]
    np.testing.assert_allclose([row[1] for row in found], [neighbour.score for neighbour in best], atol=1e-6)
    with pytest.raises(EncoderError, match="does not know the word 'emperor'"):
        encoder.nearest_words("emperor")


def test_concurrent_conversion_of_a_file(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    word_files.write_text(tmp_path / "glove.txt", WORDS, _some().vectors)

    def encode(_: int) -> NDArray[np.float32]:
        return WordVectors(str(tmp_path / "glove.txt")).encode_documents(["the queen"])

    def results() -> Iterator[NDArray[np.float32]]:
        with ThreadPoolExecutor(8) as pool:
            yield from pool.map(encode, range(16))

    first, *others = results()
    for other in others:
        np.testing.assert_array_equal(first, other)
