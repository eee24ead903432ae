"""The first transaction of a batch: jobs leased, then their rows read; of one embedding after the other."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import psycopg
from psycopg import Connection

from embeddb.encoders import Encoder, from_config
from embeddb.encoders.identity import same_encoder
from embeddb.errors import CatalogError, EmbeddbError
from embeddb.queue import MOST, Job, Target, claim, idle_until, measure, portions, read, release, split, targets
from embeddb.queue.fingerprints import check_fingerprint
from embeddb.worker.encoding import Batch
from embeddb.worker.options import Options
from embeddb.worker.pace import Pace
from embeddb.worker.session import Session

log = logging.getLogger("embeddb.worker")

#: Jobs that so many workers did not survive are worked on one row at a time, and alone: one of them may be why.
SUSPECT: Final = 2
#: Seconds between looks at what is registered.
REFRESH: Final = 5.0
#: Seconds to leave an embedding alone that cannot be worked on.
SULK: Final = 30.0

#: Renamed or dropped since the target was loaded, or not granted to this role.
_CHANGED = (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege)


class Claims:
    """What a worker may work on next. For one thread, with a session of its own."""

    def __init__(
        self,
        session: Session,
        worker: Callable[[], int],
        options: Options,
        *,
        names: Collection[str] | None = None,
        encoders: Collection[Encoder] = (),
    ) -> None:
        self._session, self._worker, self._options, self._names = session, worker, options, names
        self._given, self._made = list(encoders), dict[str, Encoder]()
        self._targets: list[Target] = []
        self._loaded = float("-inf")
        self._checked: set[int] = set()
        self._away: dict[int, tuple[float, EmbeddbError]] = {}
        self.pace = Pace(options)

    def next(self) -> Batch | None:
        """The next batch, or None where nothing is ready."""
        if time.monotonic() - self._loaded > REFRESH:
            self._load()
        for _ in range(len(self._targets)):
            target = self._targets.pop(0)
            self._targets.append(target)
            if self._is_away(target):
                continue
            try:
                batch = self._claim(target)
            except _CHANGED as error:
                self.send_away(target, CatalogError(f"{target.name}: {str(error).strip()}"))
                self.reload()
                continue
            except EmbeddbError as error:
                self.send_away(target, error)
                continue
            if batch is not None:
                return batch
        return None

    def waiting(self) -> float | None:
        """Seconds until something may be ready: None where nothing is queued for what this worker works on."""
        times = []
        for target in self._targets:
            seconds = self._session.run(idle_until, target)
            if seconds is not None:
                times.append(seconds)
        return min(times, default=None)

    @property
    def errors(self) -> list[EmbeddbError]:
        """Why embeddings are being left alone just now."""
        known = {target.id for target in self._targets}
        return [error for key, (until, error) in self._away.items() if key in known and until > time.monotonic()]

    def reload(self) -> None:
        """Look at what is registered before the next claim."""
        self._loaded = float("-inf")

    def send_away(self, target: Target, error: EmbeddbError) -> None:
        """Leave an embedding alone for a while: its table or its encoder cannot be used."""
        log.error("%s is left alone for %.0f s: %s", target.name, SULK, error, extra={"embedding": target.name})
        self._away[target.id] = (time.monotonic() + SULK, error)

    def _is_away(self, target: Target) -> bool:
        until, _ = self._away.get(target.id, (0.0, None))
        if until > time.monotonic():
            return True
        self._away.pop(target.id, None)
        return False

    def _load(self) -> None:
        def load(connection: Connection[Any]) -> list[Target]:
            if self._names is None:
                return targets(connection)
            return [target for name in sorted(self._names) for target in targets(connection, name)]

        order = {target.id: place for place, target in enumerate(self._targets)}
        self._targets = sorted(self._session.run(load), key=lambda target: order.get(target.id, -1))
        self._loaded = time.monotonic()
        self._checked.clear()

    def _encoder(self, target: Target) -> Encoder:
        """The target's encoder, of the fingerprint that its rows were embedded with."""
        config = target.spec.encoder
        encoder = next((given for given in self._given if same_encoder(given.config, config)), None)
        if encoder is None:
            key = _as_json(config)
            encoder = self._made[key] = self._made.get(key) or from_config(config)
        if target.id not in self._checked:
            self._session.run(check_fingerprint, target, encoder)
            self._checked.add(target.id)
        return encoder

    def _claim(self, target: Target) -> Batch | None:
        worker, size, lease = self._worker(), self.pace.rows(target.id), self._options.lease_time
        jobs = self._session.run(claim, target, worker, rows=size, lease=lease)
        jobs = self._isolate(jobs)
        if not jobs:
            return None
        try:
            encoder = self._encoder(target)
        except EmbeddbError:
            self._session.run(release, worker, jobs)
            raise
        keys = list(dict.fromkeys(key for job in jobs for key in job.keys))
        sizes = self._session.run(measure, target, keys)
        oversized = {key: size for key, size in sizes.items() if size > MOST}
        now = next(portions([key for key in keys if key not in oversized], sizes), [])
        jobs = self._keep(jobs, {*now, *oversized})
        rows = self._session.run(read, target, now)
        unread = {key for job in jobs for key in job.keys}.difference(now, oversized)
        return Batch(target, encoder, jobs, rows, unread, oversized, any(job.deaths >= SUSPECT for job in jobs))

    def _keep(self, jobs: list[Job], keys: set[str]) -> list[Job]:
        """The jobs that hold any of these keys; the others are given back, for memory cannot hold their rows too."""
        held: list[Job] = []
        others: list[Job] = []
        for job in jobs:
            (others if keys.isdisjoint(job.keys) else held).append(job)
        if others:
            self._session.run(release, self._worker(), others)
        return held

    def _isolate(self, jobs: list[Job]) -> list[Job]:
        """Of jobs that are suspected only one, of one row; the others as they are."""
        suspects = [job for job in jobs if job.deaths >= SUSPECT]
        if not suspects:
            return jobs
        worker = self._worker()
        whole = [job.id for job in suspects if len(job.keys) > 1]
        if whole:
            self._session.run(split, worker, whole)
        others = [job for job in jobs if job.deaths < SUSPECT]
        single = [job for job in suspects if len(job.keys) == 1]
        if others:
            self._session.run(release, worker, single)
            return others
        self._session.run(release, worker, single[1:])
        return single[:1]


def _as_json(config: Mapping[str, Any]) -> str:
    """A configuration as a key: one encoder serves all embeddings that are declared with the same."""
    return json.dumps(dict(config), sort_keys=True)
