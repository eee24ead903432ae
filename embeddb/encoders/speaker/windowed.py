"""Sounds of any rate and length through a network that takes batches at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.protocol import Vectors
from embeddb.encoders.speaker.filterbanks import RATE
from embeddb.errors import EncoderError, SourceError
from embeddb.waveform import Waveform, check, resample, windows

Samples = NDArray[np.float32]


def embed_windows(
    inputs: Sequence[object],
    embed: Callable[[Sequence[Samples]], Vectors],
    dim: int,
    *,
    seconds: float,
    batch_seconds: float,
    least_seconds: float = 0.0,
    equal_lengths: bool = False,
) -> Vectors:
    """Vectors (len(inputs), dim) of length 1: the mean over each sound's windows of ``seconds``.

    ``embed`` gets at most ``batch_seconds`` of sound at 16 kHz at a time (but always one window), of like length,
    or of one length where ``equal_lengths`` is set. A sound below ``least_seconds`` is repeated up to there; one of
    less than 25 ms, or silent, gets a row of NaN.
    """
    owners: list[int] = []
    pieces: list[Samples] = []
    for position, value in enumerate(inputs):
        for piece in _pieces(value, position, seconds, round(least_seconds * RATE)):
            owners.append(position)
            pieces.append(piece)
    sums = np.zeros((len(inputs), dim))
    for batch in _batches(pieces, int(batch_seconds * RATE), equal_lengths):
        vectors = embed([pieces[index] for index in batch]).astype(float)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.add.at(sums, [owners[index] for index in batch], vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    lengths[lengths == 0] = np.nan
    return np.asarray(sums / lengths, np.float32)


def _pieces(value: object, position: int, seconds: float, least: int) -> list[Samples]:
    if not isinstance(value, Waveform):
        raise EncoderError(
            f"input {position} is {type(value).__name__}, not sound: give embeddb.Waveform(samples, rate), "
            "which says its sample rate",
            position=position,
        )
    try:
        check(value)
    except SourceError:
        return []
    sound = resample(value, RATE)
    if len(sound) < least:
        sound = Waveform(np.resize(sound.samples, least), RATE)
    return [window.samples for window in windows(sound, seconds)]


def _batches(pieces: Sequence[Samples], limit: int, equal_lengths: bool) -> Iterator[list[int]]:
    """Indexes of pieces of like length, longest first, so that little is padded."""
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(pieces)), key=lambda index: len(pieces[index]), reverse=True):
        size = len(pieces[index])
        if batch and ((len(batch) + 1) * longest > limit or (equal_lengths and size != longest)):
            yield batch
            batch = []
        if not batch:
            longest = size
        batch.append(index)
    if batch:
        yield batch
