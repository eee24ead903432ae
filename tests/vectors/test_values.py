"""What counts as a vector, and what is refused before it comes near a server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgvector import HalfVector
from pgvector import Vector as PgVector

from embeddb.errors import VectorError
from embeddb.metrics import Storage
from embeddb.vectors import as_vector, check_vector, check_vectors

torch = pytest.importorskip("torch", reason="torch's tensors are among the inputs")


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.0],
        (1, 2),
        np.array([1, 2]),
        np.array([1, 2], ">f8"),
        np.array([1, 2], np.float16),
        np.array([1, 2], np.uint8),
        np.arange(1, 5, dtype=np.float32)[::1][:2],
        np.array([1, 9, 2, 9], np.float32)[::2],
        [np.float32(1), np.int8(2)],
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        [torch.tensor(1.0), torch.tensor(2.0)],
        PgVector([1, 2]),
        HalfVector([1, 2]),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_taken(value: Any) -> None:
    vector = as_vector(value, 2)
    assert vector.tolist() == [1, 2]
    assert vector.dtype == np.dtype("=f4")
    assert vector.flags.c_contiguous


def test_an_array_that_is_right_is_not_copied() -> None:
    given = np.ones(3, np.float32)
    assert as_vector(given) is given


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[1,2]", "str '\\[1,2\\]'"),
        (b"\0\2\0\0", "bytes"),
        (None, "NoneType None"),
        ({1: 2}, "dict"),
        ({1, 2}, "set"),
        ([1, None], "list"),
        ([1, [2]], "list"),
        (["1", "2"], "list"),
        ([True, False], "list"),
        ([1j, 2], "list"),
        (np.array(["1", "2"]), "ndarray"),
        (torch.tensor([True, False]), "Tensor"),
        (torch.tensor([1j, 2]), "Tensor"),
        (torch.empty(2, device="meta"), "Tensor"),
        (iter([1, 2]), "list_iterator"),
        (3.0, r"shape \(\)"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([], r"shape \(0,\)"),
        ([1, 2, 3], "3 dimensions, and its column has 2"),
        ([1, np.nan], "NaN at position 1"),
        ([-np.inf, 1], "infinity.* at position 0"),
        ([1e39, 1], "beyond float32, at position 0"),
        ([0, 0.0], "all zeros"),
        ([1e-50, 0], "all zeros"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_refused(value: Any, words: str) -> None:
    with pytest.raises(VectorError, match=f"^the title of row 7 .*{words}"):
        as_vector(value, 2, what="the title of row 7")


def test_zeros_may_be_searched_for() -> None:
    assert as_vector([0, 0], allow_zero=True).tolist() == [0, 0]


def test_extremes_are_no_reason_to_refuse() -> None:
    # Their squares overflow and underflow float32, which is what the quick check looks at.
    assert as_vector([3e38, -3e38])[0] == np.float32(3e38)
    assert as_vector([1e-40, 0])[0] == np.float32(1e-40)


@pytest.mark.parametrize(
    ("value", "words"),
    [([65520, 1], "65520.0 at position 0"), ([2**-25, 0], "all zeros in half"), ([1, 2, 3], "3 dim")],
)
def test_refused_in_half_precision(value: list[float], words: str) -> None:
    with pytest.raises(VectorError, match=words):
        check_vector(value, 2, storage="halfvec")


@given(st.lists(st.floats(width=32, min_value=-(2.0**17), max_value=2.0**17), min_size=1, max_size=4))
def test_half_precision_is_refused_exactly_where_numpy_would_lose_it(elements: list[float]) -> None:
    with np.errstate(over="ignore"):
        halves = np.array(elements, np.float32).astype(np.float16)
    storable = bool(np.isfinite(halves).all() and halves.any())
    assert _passes(lambda: check_vector(elements, storage="halfvec")) == storable


@given(
    st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["vector", "halfvec"]),
)
def test_many_at_once_are_judged_like_each(rows: list[list[float]], storage: Storage) -> None:
    bad = [i for i, row in enumerate(rows) if not _passes(partial(check_vector, row, 3, storage=storage))]
    matrix = np.array(rows, np.float32)
    if not bad:
        assert check_vectors(matrix, 3, storage=storage, where=str).tobytes() == matrix.tobytes()
    else:
        with pytest.raises(VectorError, match=f"^row {bad[0]} "):
            check_vectors(matrix, 3, storage=storage, where=lambda i: f"row {i}")


@pytest.mark.parametrize("values", [np.ones(3), np.ones((2, 4)), np.ones((2, 3), bool), np.full((2, 3), "1")])
def test_an_array_of_another_kind_is_refused(values: Any) -> None:
    with pytest.raises(VectorError, match=r"^row 0"):
        check_vectors(values, 3, where=lambda i: f"row {i}")


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except VectorError:
        return False
    return True
