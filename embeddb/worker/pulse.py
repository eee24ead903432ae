"""Signs of life: while a worker lives its leases are renewed and its row in ``embeddb.worker`` is fresh."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final

from psycopg import Connection

from embeddb.queue import Job, heartbeat
from embeddb.queue.jobs import bury
from embeddb.worker.options import Options
from embeddb.worker.session import Session, Stopped
from embeddb.worker.totals import Totals

log = logging.getLogger("embeddb.worker")

#: Seconds between signs of life, where the lease is not shorter; embeddb.workers takes one silent for 30 for dead.
INTERVAL: Final = 10.0
#: The row of a worker that was silent for so long is removed.
_BURY: Final = timedelta(minutes=10)


class Pulse:
    """The heartbeat thread, with the jobs that the worker holds."""

    def __init__(self, session: Session, options: Options, totals: Totals) -> None:
        self.session = session
        #: The worker's id in ``embeddb.worker``; 0 before ``start``.
        self.worker = 0
        self._options, self._totals = options, totals
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="embeddb-pulse", daemon=True)

    def start(self, register: Callable[[Connection[Any]], int]) -> None:
        """Sign on, and begin to beat."""
        self.session.open()
        self.worker = self.session.run(register)
        self._thread.start()

    def hold(self, jobs: Iterable[Job]) -> None:
        """From now on these leases are renewed."""
        with self._lock:
            self._held.update(job.id for job in jobs)

    def drop(self, jobs: Iterable[Job]) -> None:
        """No longer these."""
        with self._lock:
            self._held.difference_update(job.id for job in jobs)

    def stop(self) -> list[int]:
        """Stop beating; the jobs that are still held."""
        self._over.set()
        self._thread.join()
        with self._lock:
            return list(self._held)

    def _beat(self) -> None:
        interval = min(INTERVAL, self._options.lease / 3)
        while not self._over.wait(interval):
            with self._lock:
                held = list(self._held)
            try:
                self.session.run(self._once, held)
            except Stopped:
                continue
            except Exception as error:
                # Without its pulse the worker goes on: at worst a lease runs out and rows are embedded twice.
                log.warning("no heartbeat: %s", error)

    def _once(self, connection: Connection[Any], held: list[int]) -> None:
        heartbeat(
            connection,
            self.worker,
            jobs=held,
            lease=self._options.lease_time,
            embedded=self._totals.embedded,
            failed=self._totals.failed,
        )
        bury(connection, _BURY)
