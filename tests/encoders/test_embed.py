from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddb.encoders import Encoder, Hashing, Vectors, clear_query_cache, embed_documents, embed_queries, embed_query
from embeddb.errors import EncoderError, NoEmbedding, RateLimited
from tests.encoders.encoder_stubs import Stub, letters


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(1, 10))
def test_equals_the_encoder_one_by_one(texts: list[str], batch_size: int) -> None:
    """In any order, with any duplicates, in batches of any size."""
    stub = Stub()
    vectors = embed_documents(stub, texts, batch_size=batch_size)
    assert vectors.shape == (len(texts), 4)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(vector, letters(text, 4))
    sent = [text for call in stub.calls for text in call]
    assert sorted(sent) == sorted(set(texts))
    assert all(len(call) <= batch_size for call in stub.calls)
    assert [len(text) for text in sent] == sorted(map(len, sent), reverse=True)


def test_no_inputs_no_call() -> None:
    stub = Stub()
    assert embed_documents(stub, []).shape == (0, 4)
    assert not stub.calls


def test_hands_over_as_many_as_the_encoder_likes() -> None:
    class Wide(Stub):
        inputs_per_call = 3

    wide = Wide()
    embed_documents(wide, ["a", "b", "c", "d"])
    assert [len(call) for call in wide.calls] == [3, 1]


def test_progress_counts_inputs_not_encodings() -> None:
    seen: list[tuple[int, int]] = []
    embed_documents(Stub(), ["a", "b", "a", "c"], batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]


def test_unhashable_inputs_are_told_apart_by_identity() -> None:
    """Arrays and images cannot be hashed or cheaply compared; the same object twice is one input."""
    wave, other = np.ones(5, np.float32), np.ones(5, np.float32)
    stub = Stub(lambda value: np.full(4, float(len(value))), modality="audio")
    vectors = embed_documents(stub, [wave, [1, 2], wave, other])
    assert vectors[:, 0].tolist() == [5, 2, 5, 5]
    assert len(stub.calls[0]) == 3


def test_a_row_of_nan_is_an_input_without_embedding() -> None:
    vectors = embed_documents(Stub(lambda text: [np.nan] * 4 if text == "?" else [1.0] * 4), ["a", "?", "b"])
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ([0.0, 0, 0, 0], "is zero"),
        ([1, np.nan, 0, 0], "holds 1 NaN"),
        ([1, np.inf, 0, 0], "is infinite"),
        ([1e-30, 0, 0, 0], "too small or too large"),
        ([1e300, 0, 0, 0], "is infinite"),
    ],
)
def test_a_bad_vector_names_encoder_and_input(bad: list[float], fault: str) -> None:
    stub = Stub(lambda text: bad if text == "bad" else [1.0] * 4)
    with pytest.raises(EncoderError, match=rf"Stub\(\) gave a vector that .*{fault}.* for input 2, 'bad'") as caught:
        embed_documents(stub, ["longer", "ok", "bad"], batch_size=1)
    assert caught.value.position == 2
    with pytest.raises(EncoderError, match=fault):
        embed_query(stub, "bad")


class Wrong(Stub):
    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "given",
    [
        np.ones((2, 5), np.float32),
        np.ones((1, 4), np.float32),
        np.ones(4),
        np.ones((2, 4), np.int8),
        [[1.0], [1.0, 2]],
        None,
    ],
)
def test_a_wrong_shape_or_type_names_the_encoder(given: Any) -> None:
    with pytest.raises(EncoderError, match=r"Stub\(\)"):
        embed_documents(Wrong(given), ["a", "b"])


def test_other_floats_become_float32() -> None:
    vectors = embed_documents(Wrong(np.ones((2, 4), np.float16)), ["a", "b"])
    assert vectors.dtype == np.float32


def test_errors_of_the_encoder() -> None:
    with pytest.raises(EncoderError, match=r"Stub\(\) failed on 2 inputs: KeyError: 'x'") as caught:
        embed_documents(Wrong(KeyError("x")), ["a", "b"])
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RateLimited) as limited:
        embed_documents(Wrong(RateLimited("later", retry_after=7)), ["a"])
    assert limited.value.retry_after == 7
    with pytest.raises(EncoderError) as placed:
        embed_documents(Wrong(EncoderError("poison", position=0)), ["a", "longest"])
    assert placed.value.position == 1, "the caller's position, not the one in the batch"


def test_a_text_encoder_takes_text_only() -> None:
    with pytest.raises(EncoderError, match=r"takes text, and input 1 is NoneType") as caught:
        embed_documents(Stub(), ["a", None])
    assert caught.value.position == 1


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_has_no_embedding(query: str) -> None:
    with pytest.raises(NoEmbedding, match="empty query"):
        embed_query(Stub(), query)
    with pytest.raises(NoEmbedding, match="empty query"):
        embed_queries(Stub(), ["a", query])


def test_queries_are_kept_and_read_only() -> None:
    stub = Stub()
    first = embed_query(stub, "planes")
    assert embed_query(stub, "planes") is first
    assert not first.flags.writeable
    assert first.shape == (4,)
    assert len(stub.calls) == 1
    embed_query(Stub(), "planes")
    clear_query_cache()
    embed_query(stub, "planes")
    assert len(stub.calls) == 2


def test_several_queries_are_one_call() -> None:
    clear_query_cache()
    encoder = Stub()
    embed_query(encoder, "known")
    encoder.calls.clear()
    found = embed_queries(encoder, ["b", "known", "a", "b"])
    assert encoder.calls == [["b", "a"]]
    assert [vector.tolist() for vector in found] == [
        embed_query(encoder, text).tolist() for text in ["b", "known", "a", "b"]
    ]
    assert encoder.calls == [["b", "a"]]
    assert not found[0].flags.writeable
    assert embed_queries(encoder, []) == []


def test_equal_encoders_share_their_queries_and_others_do_not() -> None:
    assert embed_query(Hashing(8), "planes") is embed_query(Hashing(8), "planes")
    assert embed_query(Hashing(16), "planes").shape == (16,)


def test_the_cache_is_bounded() -> None:
    stub = Stub()
    for number in range(1100):
        embed_query(stub, f"query {number}")
    embed_query(stub, "query 1099")
    assert len(stub.calls) == 1100
    embed_query(stub, "query 0")
    assert len(stub.calls) == 1101


def test_threads_that_ask_for_one_text_encode_it_once() -> None:
    arrived = threading.Event()

    def slow(text: str) -> Vectors:
        arrived.wait(5)
        return letters(text, 4)

    stub = Stub(slow)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(embed_query, stub, "the same") for _ in range(8)]
        while not stub.calls:
            time.sleep(0.001)
        other = pool.submit(embed_query, Stub(), "another")
        arrived.set()
        vectors = [future.result() for future in futures]
    assert len(stub.calls) == 1
    assert all(vector is vectors[0] for vector in vectors)
    assert other.result().shape == (4,)


def test_a_failed_query_is_tried_again() -> None:
    answers: list[Any] = [RuntimeError("down"), [1.0] * 4]

    def flaky(_: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    stub = Stub(flaky)
    with pytest.raises(EncoderError, match="down"):
        embed_query(stub, "q")
    assert embed_query(stub, "q").tolist() == [1, 1, 1, 1]


def test_a_query_that_says_nothing_to_the_encoder() -> None:
    with pytest.raises(NoEmbedding, match=r"Hashing\(dim=8\) has no embedding of the query '\?'"):
        embed_query(Hashing(8), "?")


def test_queries_that_cannot_be_kept_are_encoded() -> None:
    class Unhashable(Stub):
        __hash__ = None  # type: ignore[assignment]

    encoder: Encoder = Unhashable()
    assert embed_query(encoder, "a").shape == (4,)
    assert [vector.shape for vector in embed_queries(encoder, ["a", "b", "a"])] == [(4,)] * 3
    assert embed_query(Stub(lambda wave: wave[:4], modality="audio"), np.ones(9, np.float32)).shape == (4,)


def test_many_threads_embed_documents() -> None:
    texts = [f"text {number % 50}" for number in range(200)]
    expected = embed_documents(Hashing(32), texts)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda size: embed_documents(Hashing(32), texts, batch_size=size), range(1, 33)):
            np.testing.assert_array_equal(vectors, expected)
