"""What a worker may be told: sizes, leases, waits and limits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a worker works. Times are in seconds.

    ``concurrency``: batches that are encoded at once; more than one helps where an encoder waits for a network.
    ``writers``: batches that are written at once, each over a connection of its own.
    ``rows``: the most rows in a batch; a slow encoder gets as many as take it about ``batch_seconds``.
    ``lease``: for how long a batch is the worker's; it is renewed while the worker lives, and the jobs of one that
    died are taken by others after it. ``poll``: how often an idle worker looks.
    ``max_attempts``: a row that was tried so often becomes a recorded failure. ``retry``, ``max_retry``: the wait
    before the second attempt, which doubles each time, up to the most.
    ``grace``: after a stop, so long the batch in the encoder's hands may take; then its jobs go back to the queue.
    ``reconnect``: give up when the database has been away so long; None means never.
    """

    concurrency: int = 1
    writers: int = 2
    rows: int = 2048
    batch_seconds: float = 4.0
    lease: float = 60.0
    poll: float = 0.2
    max_attempts: int = 8
    retry: float = 0.5
    max_retry: float = 60.0
    grace: float = 30.0
    reconnect: float | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "writers", "rows", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("batch_seconds", "lease", "poll", "retry", "max_retry"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {getattr(self, name)}")

    @property
    def lease_time(self) -> timedelta:
        """The lease as the database takes it."""
        return timedelta(seconds=self.lease)

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after so many attempts: doubling, capped, and spread by up to a half.

        The spread keeps rows that failed together from coming back together ("Exponential Backoff And Jitter",
        AWS Architecture Blog, 2015).
        """
        longest = min(self.max_retry, self.retry * 2.0 ** min(attempts - 1, 60))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
