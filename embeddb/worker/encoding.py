"""What becomes of a batch's rows: encoded, blank, failed, or to be tried again; the poison row stands alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from embeddb.encoders import Encoder, Vectors, embed_documents
from embeddb.errors import (
    EncoderError,
    EncoderNotFound,
    MissingExtra,
    RateLimited,
    SourceError,
    TransientEncoderError,
    TransientSourceError,
)
from embeddb.queue import Done, Failed, Gone, Job, Later, Outcome, Row, Target
from embeddb.sources.files import FileState
from embeddb.sources.inputs import Inputs, Part
from embeddb.worker.options import Options

#: Seconds to leave an encoder alone that asked for a pause and did not say how long.
PAUSE: Final = 10.0
#: After so many rows that failed one by one, and none that did not, it is the encoder that is broken.
HOPELESS: Final = 32

DEADLY: Final = "workers ended without a word while they embedded it: it is too large for them, or kills them"
OVERSIZED: Final = "its sources take {:,} bytes, more than Postgres can compare: split it, or keep it in a file"
NO_EMBEDDING: Final = "the encoder has no embedding for it: it knows nothing in these sources"


class EncoderUnavailable(Exception):
    """The encoder cannot work here at all: no row is to blame, and none is tried."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Leased jobs of one embedding with the rows that are there, and the encoder to run them through.

    ``unread``: keys whose rows were not read, for those that were are large; ``oversized``: those of rows that never
    will be, with their bytes. ``alone``: nothing else may be under way with it, because it is suspected of ending its
    workers.
    """

    target: Target
    encoder: Encoder
    jobs: Sequence[Job]
    rows: Sequence[Row]
    unread: Collection[str] = ()
    oversized: Mapping[str, int] = field(default_factory=dict)
    alone: bool = False

    @property
    def keys(self) -> list[str]:
        """Every key of the jobs, once."""
        return list(dict.fromkeys(key for job in self.jobs for key in job.keys))


@dataclass(slots=True)
class Encoded:
    """An outcome for every key. ``pause``: seconds that the encoder asks to be left alone, and why."""

    outcomes: dict[str, Outcome]
    pause: tuple[float, str] | None = None


Pairs = Sequence[tuple[Row, Any]]


@dataclass(slots=True)
class _Run:
    """One batch on its way through the encoder."""

    batch: Batch
    options: Options
    attempts: dict[str, int]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    #: Which content was read of the files of rows.
    files: dict[str, FileState] = field(default_factory=dict)
    pause: tuple[float, str] | None = None
    failed: int = 0
    succeeded: bool = False

    def run(self) -> None:
        """Read and encode every row, until the encoder asks for a pause."""
        try:
            inputs = Inputs.of(self.batch.target.spec, self.batch.encoder)
            for part in inputs.parts((row, row.values) for row in self.batch.rows):
                self._take_part(part)
                if self.pause is not None:
                    break
        except (SourceError, MissingExtra) as error:  # no row's fault: what this process may read, or lacks
            raise EncoderUnavailable(str(error)) from error
        if self.broken:
            for key, outcome in self.outcomes.items():
                if isinstance(outcome, Failed) and outcome.step == "encode":
                    self.outcomes[key] = self.later(key) or outcome

    def _take_part(self, part: Part[Row]) -> None:
        for row in part.blank:
            self.outcomes[row.key] = Done(row.hash, None)
        for row, error in part.failed:
            self.unreadable(row, error)
        for (row, _), state in zip(part.inputs, part.states, strict=True):
            if state is not None:
                self.files[row.key] = state
        self.encode(part.inputs)

    def encode(self, pairs: Pairs) -> None:
        """Encode rows with their inputs; where that fails, in parts, until each row that fails stands alone."""
        parts = [pairs]
        while parts and self.pause is None:
            part = parts.pop()
            if not part:
                continue
            try:
                vectors = embed_documents(self.batch.encoder, [value for _, value in part])
            except RateLimited as error:
                seconds = PAUSE if error.retry_after is None else max(error.retry_after, 0.0)
                self.pause = (seconds, str(error))
            except (EncoderNotFound, MissingExtra) as error:
                raise EncoderUnavailable(str(error)) from error
            except TransientEncoderError as error:
                parts += self._again(part, str(error))
            except EncoderError as error:
                parts += self._isolate(part, error)
            else:
                self._take(part, vectors)

    def unreadable(self, row: Row, error: SourceError) -> None:
        """Its sources cannot be had: later if that may pass, else a failure."""
        later = self.later(row.key) if isinstance(error, TransientSourceError) else None
        self.outcomes[row.key] = later or Failed(row.hash, "read", str(error))

    def later(self, key: str) -> Later | None:
        """Another attempt after a while; None where this was the last."""
        attempts = self.attempts[key]
        return None if attempts >= self.options.max_attempts else Later(self.options.backoff(attempts), counted=True)

    def _take(self, part: Pairs, vectors: Vectors) -> None:
        self.succeeded = True
        unknown = np.isnan(vectors[:, 0]).tolist()
        for (row, _), vector, nothing in zip(part, vectors, unknown, strict=True):
            done = Done(row.hash, vector, self.files.get(row.key))
            self.outcomes[row.key] = Failed(row.hash, "encode", NO_EMBEDDING) if nothing else done

    def _again(self, part: Pairs, error: str) -> list[Pairs]:
        """Later, as a counted attempt; a row at its last attempt is tried without the others, then given up."""
        last: list[Pairs] = []
        for pair in part:
            key = pair[0].key
            later = self.later(key)
            if later is None:
                last.append([pair])
            self.outcomes[key] = later or Failed(pair[0].hash, "encode", error)
        return last if len(part) > 1 else []

    def _isolate(self, part: Pairs, error: EncoderError) -> list[Pairs]:
        if len(part) == 1:
            self.failed += 1
            self.outcomes[part[0][0].key] = Failed(part[0][0].hash, "encode", str(error))
            return []
        if self.broken:
            return self._again(part, str(error))
        alone: list[Pairs] = []
        if error.position is not None and error.position < len(part):
            alone = [[part[error.position]]]
            part = [*part[: error.position], *part[error.position + 1 :]]
        half = len(part) // 2
        return [part[half:], part[:half], *alone]

    @property
    def broken(self) -> bool:
        """Does everything fail? Then it is the encoder, and no row."""
        return self.failed >= HOPELESS and not self.succeeded


def encode(batch: Batch, options: Options) -> Encoded:
    """Run a batch through its encoder, with no transaction open. Never raises for what a row holds.

    Raises EncoderUnavailable where the encoder itself cannot be had.
    """
    run = _Run(batch, options, {key: job.attempts for job in batch.jobs for key in job.keys})
    deaths = max((job.deaths for job in batch.jobs), default=0)
    if batch.alone and deaths >= options.max_attempts:
        for row in batch.rows:
            run.outcomes[row.key] = Failed(row.hash, "encode", f"{deaths} {DEADLY}")
    else:
        run.run()
    for key, size in batch.oversized.items():
        run.outcomes[key] = Failed(None, "read", OVERSIZED.format(size))
    present = {row.key for row in batch.rows}.union(batch.unread)
    for key in batch.keys:
        run.outcomes.setdefault(key, Later() if key in present else Gone())
    return Encoded(run.outcomes, run.pause)
