"""pgvector's binary and text formats, against pgvector-python and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pgvector import HalfVector
from pgvector import Vector as PgVector

from embeddb.errors import VectorError
from embeddb.vectors import Vector, from_text, pack, to_text, unpack

singles = arrays.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(singles)
def test_any_vector_survives(vector: Vector) -> None:
    assert unpack(pack(vector)).tobytes() == vector.tobytes()
    assert from_text(to_text(vector)).tobytes() == vector.tobytes()


@given(
    arrays.arrays(np.float16, st.integers(1, 40), elements=st.floats(width=16, allow_nan=False, allow_infinity=False))
)
def test_any_half_survives(halves: np.ndarray[tuple[int], np.dtype[np.float16]]) -> None:
    vector = halves.astype(np.float32)
    assert unpack(pack(vector, "halfvec"), "halfvec").tobytes() == vector.tobytes()


def test_it_is_the_format_of_pgvectors_own_client() -> None:
    vector = np.array([1, -2.5, 1e-3], np.float32)
    assert pack(vector) == PgVector(vector).to_binary()
    assert pack(vector, "halfvec") == HalfVector(vector).to_binary()


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_what_comes_out(storage: str) -> None:
    vector = unpack(memoryview(pack(np.ones(3, np.float32), storage)), storage)  # type: ignore[arg-type]
    assert vector.dtype == np.dtype("=f4")
    assert vector.shape == (3,)
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 2


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\2\0\0" + bytes(4), b"\0\1\0\1" + bytes(4), b"[1,2]" * 3])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(VectorError, match=f"{len(data)} bytes are not a vector"):
        unpack(data)


@pytest.mark.parametrize("text", ["", "[", "1,2", "[]", "[1,,2]", "[1,two]"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(VectorError, match="not a vector in pgvector's text format"):
        from_text(text)
