"""Running an encoder: each input once, in batches of like length, and nothing but good vectors out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.memo import Memo
from embeddb.encoders.pictures import decodes
from embeddb.encoders.protocol import Encoder, Vectors
from embeddb.errors import EncoderError, NoEmbedding, SourceError

Vector = NDArray[np.float32]
#: Called with how many inputs are done, and of how many, after each batch.
Progress = Callable[[int, int], None]

BATCH: Final = 256

_queries: Final[Memo[tuple[Encoder, str], Vector]] = Memo(size=1024)


def embed_documents(
    encoder: Encoder, inputs: Sequence[Any], *, progress: Progress | None = None, batch_size: int | None = None
) -> Vectors:
    """Vectors of shape (len(inputs), encoder.dim), float32, in the order of the inputs.

    Equal texts, and the same image or array object, are encoded once. The encoder gets batches of like length,
    longest first, of ``batch_size`` inputs, by default its ``inputs_per_call`` or else 256. A row that is NaN
    throughout is an input without an embedding. Raises EncoderError, naming the encoder and the input's
    position, where a vector is zero, not finite or of the wrong dimensions; what the encoder raises of embeddb's
    errors goes through, so RateLimited stays RateLimited.
    """
    _check_inputs(encoder, inputs)
    vectors = np.empty((len(inputs), encoder.dim), np.float32)
    positions: dict[Hashable, list[int]] = {}
    for position, value in enumerate(inputs):
        positions.setdefault(_key(value), []).append(position)
    groups = sorted(positions.values(), key=lambda group: _length(inputs[group[0]]), reverse=True)
    size = batch_size or int(getattr(encoder, "inputs_per_call", BATCH))
    done = 0
    for start in range(0, len(groups), size):
        batch = groups[start : start + size]
        firsts = [group[0] for group in batch]
        encoded = _encode(encoder, encoder.encode_documents, [inputs[first] for first in firsts], firsts)
        for group, vector in zip(batch, encoded, strict=True):
            vectors[group] = vector
            done += len(group)
        if progress is not None:
            progress(done, len(inputs))
    return vectors


def embed_query(encoder: Encoder, value: Any) -> Vector:
    """The vector of one query: float32 of shape (encoder.dim,), read-only.

    The last 1,024 texts are kept, by encoder and text; threads that ask for the same text at once wait for one
    encoding of it. Raises NoEmbedding where the encoder knows nothing in it, else as ``embed_documents``.
    """
    if type(value) is not str:
        return _query(encoder, value)
    try:
        hash(encoder)
    except TypeError:
        return _query(encoder, value)
    return _queries.get((encoder, value), lambda: _query(encoder, value))


def embed_queries(encoder: Encoder, texts: Sequence[str]) -> list[Vector]:
    """The vectors of several text queries, those that are not kept in one call of the encoder; as ``embed_query``."""
    distinct = list(dict.fromkeys(texts))
    try:
        new = [text for text in distinct if (encoder, text) not in _queries]
    except TypeError:  # an encoder that cannot be hashed keeps nothing
        new = distinct
    made: dict[str, Vector] = {}
    if len(new) > 1:
        _check_queries(encoder, new)
        vectors = _encode(encoder, encoder.encode_queries, new, [texts.index(text) for text in new])
        made = {text: _checked(encoder, text, vector) for text, vector in zip(new, vectors, strict=True)}
        if new is not distinct:
            made = {text: _queries.get((encoder, text), partial(made.__getitem__, text)) for text in new}
    return [made[text] if text in made else embed_query(encoder, text) for text in texts]


def clear_query_cache() -> None:
    """Forget every query's vector, after a model was changed in place."""
    _queries.clear()


def _query(encoder: Encoder, value: Any) -> Vector:
    _check_queries(encoder, [value])
    return _checked(encoder, value, _encode(encoder, encoder.encode_queries, [value], [0])[0])


def _check_queries(encoder: Encoder, values: Sequence[Any]) -> None:
    if any(isinstance(value, str) and not value.strip() for value in values):
        raise NoEmbedding("an empty query has no embedding: search for a text")
    if "image" not in getattr(encoder, "query_modalities", ()):
        _check_inputs(encoder, values)


def _checked(encoder: Encoder, value: Any, row: Vector) -> Vector:
    """A query's row as a vector of its own, if it has one."""
    vector: Vector = row.copy()
    if np.isnan(vector[0]):
        raise NoEmbedding(f"{encoder!r} has no embedding of the query {_shown(value)}: it knows nothing in it")
    vector.flags.writeable = False
    return vector


def _encode(
    encoder: Encoder, method: Callable[[Sequence[Any]], Any], inputs: Sequence[Any], positions: Sequence[int]
) -> Vectors:
    """Call the encoder and check what it gives; ``positions`` are the inputs' places in the caller's list."""
    try:
        vectors = np.asarray(method(_sounds(inputs) if encoder.modality == "audio" else inputs))
    except EncoderError as error:
        if error.position is not None and error.position < len(positions):
            error.position = positions[error.position]
        raise
    except Exception as error:
        raise EncoderError(f"{encoder!r} failed on {len(inputs)} inputs: {type(error).__name__}: {error}") from error
    if vectors.shape != (len(inputs), encoder.dim) or not np.issubdtype(vectors.dtype, np.floating):
        raise EncoderError(
            f"{encoder!r} gave {vectors.dtype} of shape {vectors.shape} for {len(inputs)} inputs, "
            f"not float32 of shape {(len(inputs), encoder.dim)}"
        )
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32, copy=False)
        # As Postgres will see it: a squared length that underflows or overflows cannot be compared.
        squares = np.einsum("ij,ij->i", vectors, vectors)
    doubtful: list[int] = np.flatnonzero(~(np.isfinite(squares) & (squares > 0))).tolist()
    for row in doubtful:
        fault = _fault(vectors[row])
        if fault:
            raise EncoderError(
                f"{encoder!r} gave a vector that {fault} for input {positions[row]}, {_shown(inputs[row])}",
                position=positions[row],
            )
    return vectors


def _sounds(inputs: Sequence[Any]) -> list[Any]:
    """Waveforms, and whatever decodes to one as ``embeddb.Audio`` does, decoded; the rest as it is."""
    found = []
    for position, value in enumerate(inputs):
        try:
            found.append(value.decode() if decodes(value) else value)
        except SourceError as error:
            raise EncoderError(f"input {position}: {error}", position=position) from error
    return found


def _fault(vector: Vector) -> str | None:
    missing = np.isnan(vector)
    if missing.all():
        return None
    if missing.any():
        return f"holds {missing.sum()} NaN"
    if np.isinf(vector).any():
        return "is infinite"
    return "is zero" if not vector.any() else "is too small or too large for float32"


def _check_inputs(encoder: Encoder, inputs: Sequence[Any]) -> None:
    if encoder.modality != "text":
        return
    for position, value in enumerate(inputs):
        if not isinstance(value, str):
            raise EncoderError(
                f"{encoder!r} takes text, and input {position} is {type(value).__name__}", position=position
            )


def _key(value: Any) -> Hashable:
    """Equal texts are one input; images and arrays have no cheap equality, so the same object is one."""
    return value if type(value) in (str, bytes) else id(value)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _shown(value: Any) -> str:
    shown = repr(value) if isinstance(value, str) else type(value).__name__
    return shown if len(shown) <= 60 else shown[:57] + "…"
