"""Does the database keep the promise? Every row, or a sample, is looked at while others go on writing.

At every committed moment a row's vector is the encoder's embedding of its sources, or NULL because they are blank,
or else something is pending for the row: a job, or a recorded failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from psycopg import Connection
from psycopg.rows import scalar_row

from embeddb.encoders import Encoder, embed_documents
from embeddb.errors import SourceError
from embeddb.queue.sizes import measure, portions
from embeddb.queue.target import Target
from embeddb.sources.inputs import Inputs, Part, in_parts, locate
from embeddb.vectors.wire import Vector, unpack

Kind = Literal["missing", "stale", "not blank", "unreadable", "orphan", "setup"]

#: Relative distance between a stored vector and a new encoding. Batches, machines and half precision make a row's
#: vector differ by up to a thousandth; another text's vector is far beyond a hundredth.
TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. ``key`` is the row's primary key as JSON, None where the embedding as a whole is meant."""

    embedding: str
    key: str | None
    kind: Kind
    detail: str

    def __str__(self) -> str:
        row = "" if self.key is None else f" row {self.key}"
        return f"{self.embedding}{row}: {self.kind}: {self.detail}"


def verify(
    connection: Connection[Any],
    target: Target,
    encoder: Encoder | None,
    *,
    sample: int | None = None,
    batch: int = 1000,
    tolerance: float = TOLERANCE,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Violation]:
    """The violations of one embedding, over all its rows or ``sample`` of them at random.

    ``encoder`` embeds the sources again to compare; None leaves that out, and finds only what is missing or should
    not be. ``progress`` is called with the rows looked at so far. ``connection`` must be in autocommit and prepared
    (``embeddb.queue.prepare``): each batch is one statement, so no snapshot is held while the encoder runs.
    """
    cursor = connection.cursor(row_factory=scalar_row)
    parameters = {"embedding": target.id}
    for problem in cursor.execute(target.statement("problems"), parameters).fetchall():
        yield Violation(target.name, None, "setup", problem)
    seen = 0
    for keys in _pages(connection, target, sample, batch):
        for portion in portions(keys, measure(connection, target, keys)):
            yield from _check(connection, target, encoder, portion, tolerance)
        seen += len(keys)
        if progress is not None:
            progress(seen)
    for key in cursor.execute(target.statement("orphans"), parameters).fetchall():
        yield Violation(target.name, key, "orphan", "a failure is recorded for a row that is gone")


def _pages(connection: Connection[Any], target: Target, sample: int | None, batch: int) -> Iterator[list[str]]:
    cursor = connection.cursor(row_factory=scalar_row)
    if sample is not None:
        keys = cursor.execute(target.statement("sample"), {"limit": sample}).fetchall()
        yield from (keys[start : start + batch] for start in range(0, len(keys), batch))
        return
    after: str | None = None
    while keys := cursor.execute(target.statement("page"), {"after": after, "limit": batch}).fetchall():
        yield keys
        after = keys[-1]


def _check(
    connection: Connection[Any],
    target: Target,
    encoder: Encoder | None,
    keys: list[str],
    tolerance: float,
) -> Iterator[Violation]:
    present: list[tuple[tuple[str, Vector], str | bytes]] = []
    spec = target.spec
    cursor = connection.execute(target.statement("inspect"), {"embedding": target.id, "keys": keys}, binary=True)
    for key, data, pending, *values in cursor:
        if pending:
            continue
        try:
            located = locate(values, spec.sources, spec.template)
        except SourceError as error:
            yield _unreadable(target, key, error)
            continue
        if located is None and data is not None:
            yield Violation(target.name, key, "not blank", "a vector of sources that are all NULL or blank")
        elif located is not None and data is None:
            yield Violation(target.name, key, "missing", "no vector, no job, no failure")
        elif located is not None:
            present.append(((key, unpack(data, target.storage)), located))
    if encoder is None:
        return
    reader = Inputs.of(spec, encoder).reader
    for part in in_parts(present, reader.reading(), ahead=reader.ahead):
        for (key, _), reason in part.failed:
            yield _unreadable(target, key, reason)
        yield from _compare(target, encoder, part, tolerance)


def _unreadable(target: Target, key: str, error: SourceError) -> Violation:
    return Violation(target.name, key, "unreadable", f"nothing is pending, and {error}")


def _compare(target: Target, encoder: Encoder, part: Part[tuple[str, Vector]], tolerance: float) -> Iterator[Violation]:
    encodings = embed_documents(encoder, [value for _, value in part.inputs])
    for ((key, vector), _), encoded in zip(part.inputs, encodings, strict=True):
        distance = float(np.linalg.norm(vector - encoded) / np.linalg.norm(encoded))
        # A row without an embedding (NaN) may not have a vector either.
        if not distance <= tolerance:
            yield Violation(
                target.name,
                key,
                "stale",
                f"the vector is {distance:.3g} away from its sources', and nothing is pending",
            )
