"""Whatever a person calls a vector, as a float32 array; what cannot be one is refused here, before any server.

pgvector keeps zero vectors out of a cosine index and answers NaN for their distance, so that a search's result
would depend on its plan: they are refused like NaN and infinity, which pgvector itself refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from embeddb.errors import VectorError
from embeddb.metrics import Storage
from embeddb.vectors.wire import Vector

#: Beyond this a half is infinite, and at or below this it is zero: both by rounding to the nearest.
_HALF_OVERFLOW: Final = 65520.0
_HALF_UNDERFLOW: Final = 2.0**-25


def as_vector(
    value: Any,
    dim: int | None = None,
    *,
    storage: Storage = "vector",
    what: str = "this vector",
    allow_zero: bool = False,
) -> Vector:
    """``value`` as one float32 array of shape (dim,), contiguous and in native byte order.

    Takes lists, tuples, numpy arrays of any integer or float dtype, torch tensors wherever they live, pgvector's
    objects, and whatever else numpy makes an array of. An array that already is one is returned as it is.

    Raises VectorError, with ``what`` in front, for anything else: another number of dimensions than ``dim``, NaN,
    infinity, a number beyond float32 or beyond a ``storage`` of half precision, and, unless ``allow_zero``, for
    nothing but zeros in the storage's precision.
    """
    vector = _float32(value, what)
    if vector.ndim != 1 or not vector.size:
        raise VectorError(f"{what} has shape {vector.shape}: give one vector, of shape ({dim or 'dimensions'},)")
    if dim is not None and len(vector) != dim:
        raise VectorError(f"{what} has {len(vector)} dimensions, and its column has {dim}: use the column's encoder")
    # One pass over good vectors: their squares sum to a finite number above zero. Only the rest is looked at closely.
    with np.errstate(over="ignore"):
        good = 0.0 < vector.dot(vector) < np.inf
    if not good:
        _refuse_element(vector, what)
        if not allow_zero and not vector.any():
            raise VectorError(f"{what} is all zeros, which has no direction: give another, or none (NULL)")
    if storage == "halfvec":
        _refuse_half(vector, what, allow_zero)
    return vector


def check_vector(
    value: Any, dim: int | None = None, *, storage: Storage = "vector", where: str = "this vector"
) -> Vector:
    """``as_vector`` for a vector that is to be stored; ``where`` names its row and column in a VectorError."""
    return as_vector(value, dim, storage=storage, what=where)


def check_vectors(
    values: npt.NDArray[Any], dim: int | None = None, *, storage: Storage = "vector", where: Callable[[int], str]
) -> npt.NDArray[np.float32]:
    """Many vectors at once: shape (n, dim), float32. ``where(i)`` names row i, counted from 0, in a VectorError."""
    if values.ndim != 2 or values.dtype.kind not in "iuf" or (dim is not None and values.shape[1] != dim):
        raise VectorError(
            f"{where(0)}: the vectors are an array of {values.dtype} of shape {values.shape}: give numbers, "
            f"of shape ({len(values)}, {dim or 'dimensions'})"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.ascontiguousarray(values, dtype=np.float32)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        doubtful = ~((squares > 0) & (squares < np.inf))
        if storage == "halfvec":
            magnitudes = np.abs(vectors)
            doubtful |= (magnitudes.max(axis=1, initial=0) <= _HALF_UNDERFLOW) | (magnitudes >= _HALF_OVERFLOW).any(
                axis=1
            )
    for row in np.flatnonzero(doubtful):
        check_vector(vectors[row], storage=storage, where=where(int(row)))
    return vectors


def _float32(value: Any, what: str) -> npt.NDArray[np.float32]:
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.flags.c_contiguous:
        return value
    if isinstance(value, str | bytes | bytearray | memoryview | dict | set | frozenset) or value is None:
        _refuse_type(value, what)
    if hasattr(value, "detach"):
        value = _of_tensor(value, what)
    elif hasattr(value, "to_numpy"):  # pgvector's Vector and HalfVector, pandas' Series
        value = value.to_numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # lists of unequal length
        _refuse_type(value, what)
    if array.dtype.kind not in "iuf":
        _refuse_type(value, what)
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused as such
        return np.asarray(array, dtype=np.float32, order="C")


def _of_tensor(tensor: Any, what: str) -> Any:
    """A torch tensor as numpy takes it, without importing torch: bfloat16 has no dtype there."""
    try:
        tensor = tensor.detach().cpu()
    except NotImplementedError:  # a tensor of the device "meta" has a shape, and no numbers
        _refuse_type(tensor, what)
    return tensor.float() if tensor.is_floating_point() else tensor


def _refuse_element(vector: Vector, what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        found = "NaN" if np.isnan(vector[bad[0]]) else "an infinity, or a number beyond float32,"
        raise VectorError(f"{what} holds {found} at position {bad[0]}: every element must be finite")


def _refuse_half(vector: Vector, what: str, allow_zero: bool) -> None:
    magnitudes = np.abs(vector)
    if magnitudes.max() >= _HALF_OVERFLOW:
        at = int(magnitudes.argmax())
        raise VectorError(
            f"{what} holds {vector[at]} at position {at}, and a halfvec ends at 65504: scale it down, "
            "or declare storage='vector'"
        )
    if not allow_zero and magnitudes.max() <= _HALF_UNDERFLOW:
        raise VectorError(f"{what} is all zeros in half precision: scale it up, or declare storage='vector'")


def _refuse_type(value: Any, what: str) -> NoReturn:
    raise VectorError(f"{what} cannot be made of {_shown(value)}: give a list, tuple, numpy array or tensor of numbers")


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"
