"""Strings of bits, such as perceptual hashes and iris codes: what a person has, as pgvector's ``bit`` takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from embeddb.errors import VectorError

#: One string of bits: shape (n,), bool.
Bits = npt.NDArray[np.bool_]


def as_bits(value: Any, length: int, *, what: str = "this value") -> str:
    """``value`` as a string of ``length`` zeros and ones, the first bit first.

    Takes such a string; bytes, or a uint8 array of shape (length / 8,), packed as ``numpy.packbits`` does, the high
    bit first; an array or list of bools, or of zeros and ones, of ``length`` elements and any shape; an int, whose
    highest bit comes first; and an object with such an array as ``hash``, as the imagehash package gives.

    Raises VectorError, with ``what`` in front, for anything else.
    """
    value = getattr(value, "hash", value)
    if isinstance(value, str):
        if len(value) != length or set(value) - {"0", "1"}:
            _refuse(value, length, what)
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not 0 <= int(value) < 2**length:
            _refuse(value, length, what)
        return format(int(value), f"0{length}b")
    if isinstance(value, bytes | bytearray | memoryview):
        value = np.frombuffer(value, np.uint8)
        if 8 * value.size != length:
            _refuse(value, length, what)
    array = np.asarray(value).ravel()
    if array.dtype == np.uint8 and 8 * array.size == length:
        array = np.unpackbits(array)
    if array.size != length or array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
        _refuse(value, length, what)
    return (array.astype(np.uint8) + ord("0")).tobytes().decode()


def from_bits(text: str) -> Bits:
    """The array of a string of zeros and ones: shape (n,), bool, read-only."""
    bits: Bits = np.frombuffer(text.encode(), np.uint8) == ord("1")
    bits.flags.writeable = False
    return bits


def pack_bits(values: Sequence[Any], length: int, where: Callable[[int], str]) -> npt.NDArray[np.uint8]:
    """Many of them as ``numpy.packbits`` packs, which is also Postgres's way: shape (n, ⌈length / 8⌉), uint8.

    Raises VectorError, with ``where(number)`` in front, for what ``as_bits`` does not take.
    """
    if isinstance(values, np.ndarray) and values.dtype == np.bool_ and values.shape[1:] == (length,):
        return np.packbits(values, axis=1)
    texts = [as_bits(value, length, what=where(at)) for at, value in enumerate(values)]
    return np.packbits(from_bits("".join(texts)).reshape(len(texts), length), axis=1)


def _refuse(value: Any, length: int, what: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise VectorError(
        f"{what} is {type(value).__name__} {shown}, and its column has {length} bits: give {length} zeros and ones as "
        f"a string or an array, or {length / 8:g} bytes"
    )
