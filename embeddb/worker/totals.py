"""What a worker has done so far."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from embeddb.queue import Settled


@dataclass(slots=True)
class Totals:
    """Rows by what became of them. ``kept`` counts every time that a row went back to the queue."""

    embedded: int = 0
    gone: int = 0
    failed: int = 0
    kept: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, settled: Settled) -> None:
        """Count one more batch; from any thread."""
        with self._lock:
            self.embedded += settled.written
            self.gone += settled.gone
            self.failed += settled.failed
            self.kept += settled.kept
