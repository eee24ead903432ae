from __future__ import annotations

import hashlib
import itertools
import math
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddb.encoders import Hashing, embed_documents
from embeddb.errors import EncoderError


def slow_reference(text: str, dim: int) -> list[float]:
    """Signed feature hashing written out, one feature at a time (Weinberger et al. 2009)."""
    tokens = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    features: Counter[str] = Counter()
    for token in tokens:
        features["word " + token] += 1
        for n in (3, 4, 5):
            for start in range(len(token) + 2 - n + 1):
                features["part " + f"<{token}>"[start : start + n]] += 1
    for first, second in itertools.pairwise(tokens):
        features[f"pair {first} {second}"] += 1

    def add(weights: dict[str, float]) -> list[float]:
        vector = [0.0] * dim
        for feature, weight in weights.items():
            number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
            vector[(number // 2) % dim] += weight if number % 2 else -weight
        return vector

    vector = add({feature: 1 + math.log(count) for feature, count in features.items()})
    if not any(abs(value) > 1e-9 for value in vector):
        vector = add({"text " + " ".join(tokens): 1.0})
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


@pytest.mark.parametrize("dim", [7, 64, 512])
@pytest.mark.parametrize(
    "text", ["planes", "Planes that land on water, planes!", "Ｆｕｌｌ ｗｉｄｔｈ ﬁ Straße", "서울의 봄", "x" * 40]
)
def test_equals_the_reference(text: str, dim: int) -> None:
    np.testing.assert_allclose(Hashing(dim).encode_documents([text])[0], slow_reference(text, dim), atol=1e-6)


def test_normal_forms_and_case_are_one() -> None:
    vectors = Hashing(64).encode_queries(["Caf\u00e9 STRASSE", "cafe\u0301 straße"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_texts_that_share_words_are_nearer() -> None:
    query, near, far = Hashing().encode_documents(["land on water", "planes that land on water", "a recipe for bread"])
    assert query @ near > 0.5
    assert query @ far < 0.2


def test_a_text_without_a_word_has_no_embedding() -> None:
    vectors = Hashing(16).encode_documents(["", " \n", "?! — …", "a"])
    assert np.isnan(vectors[:3]).all()
    assert np.linalg.norm(vectors[3]) == pytest.approx(1)


@given(st.text(), st.integers(1, 4))
def test_never_zero_however_few_the_dimensions(text: str, dim: int) -> None:
    """Signs cancel often in few places; embed_documents would refuse a zero vector."""
    vector = embed_documents(Hashing(dim), [text])[0]
    assert np.isnan(vector).all() or np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_same_in_another_process() -> None:
    """Python's own hash() differs between processes; ours may not."""
    code = (
        "from embeddb.encoders import Hashing; print(Hashing(8).encode_documents(['planes on water']).tobytes().hex())"
    )
    environment = {"PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == Hashing(8).encode_documents(["planes on water"]).tobytes().hex()


def test_is_a_value() -> None:
    assert Hashing(64) == Hashing(64) != Hashing(65)
    assert len({Hashing(64), Hashing(64)}) == 1
    assert Hashing(64).fingerprint == Hashing(64).fingerprint != Hashing(65).fingerprint
    assert repr(Hashing(64)) == "Hashing(dim=64)"
    assert Hashing().config == {"type": "hashing"}
    with pytest.raises(EncoderError, match="positive"):
        Hashing(0)
