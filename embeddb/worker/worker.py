"""The worker: reading, encoding and writing batches at the same time, each in its own thread and transaction."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Final

from sqlalchemy import URL, Engine

from embeddb.encoders import Encoder
from embeddb.errors import EncoderNotFound
from embeddb.queue import Settled, TargetChanged, leave, register_worker, release
from embeddb.worker.claiming import Claims
from embeddb.worker.encoding import Batch, Encoded, EncoderUnavailable, encode
from embeddb.worker.options import Options
from embeddb.worker.pulse import Pulse
from embeddb.worker.session import Session, Stopped, connector
from embeddb.worker.totals import Totals
from embeddb.worker.writing import settle_batch

log = logging.getLogger("embeddb.worker")

#: Called after each batch, from the writing thread, with its embedding's name, what was settled, and the seconds
#: that the encoder took for how many rows.
Observer = Callable[[str, Settled, float, int], None]

#: Batches beyond those that are encoded or written: one being read or waiting for the encoder.
_READ: Final = 1


class Worker:
    """Works on the queue of one database until ``stop`` is called, or, once, until nothing is queued.

    ``bind``: an engine or URL. ``names``: embeddings to work on, by default all, those registered later too.
    ``encoders``: objects to use where their configuration is asked for; others are made of their configuration.
    Any number of workers may work on one database, from any host.
    """

    def __init__(
        self,
        bind: Engine | URL | str,
        *,
        names: Collection[str] | None = None,
        encoders: Collection[Encoder] = (),
        options: Options | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.options = options or Options()
        self.totals = Totals()
        self._observer = observer
        self._stop = threading.Event()
        self._cut = threading.Event()
        connect = connector(bind)
        patience = self.options.reconnect
        # Once told to stop, a worker waits for its encoder, but no longer for a server that is away.
        self._reader = Session(connect, self._stop, patience)
        self._writers: SimpleQueue[Session] = SimpleQueue()
        for _ in range(self.options.writers):
            self._writers.put(Session(connect, self._stop, patience))
        self._pulse = Pulse(Session(connect, self._stop, patience), self.options, self.totals)
        self._claims = Claims(self._reader, lambda: self._pulse.worker, self.options, names=names, encoders=encoders)
        self._slots = threading.Semaphore(self.options.concurrency + self.options.writers + _READ)
        self._settled = threading.Condition()
        self._in_flight = 0
        self._error: BaseException | None = None

    def stop(self) -> None:
        """Claim nothing more, finish what is in the encoder's hands, and return from ``run``. For any thread."""
        if self._stop.is_set():
            self._cut.set()  # the second time: give back what is not encoded yet, at once
        self._stop.set()
        with self._settled:
            self._settled.notify_all()

    def run(self, *, once: bool = False) -> Totals:
        """Work. ``once``: return when nothing is queued any more, after waiting for what is to be retried.

        Raises the error of a database or catalog that is not there at the start, and with ``once`` that of an
        encoder that cannot be used.
        """
        try:
            self._reader.open()
            self._pulse.start(register_worker)
        except BaseException:
            self._reader.close()
            self._pulse.session.close()
            raise
        encoding = ThreadPoolExecutor(self.options.concurrency, "embeddb-encode")
        writing = ThreadPoolExecutor(self.options.writers, "embeddb-write")
        try:
            with suppress(Stopped):
                self._feed(encoding, writing, once)
        finally:
            self._stop.set()
            finished = self._finish()
            for executor in (encoding, writing):
                executor.shutdown(wait=finished, cancel_futures=True)
            self._leave()
        if self._error is not None:
            raise self._error
        return self.totals

    def _feed(self, encoding: ThreadPoolExecutor, writing: ThreadPoolExecutor, once: bool) -> None:
        while not self._stop.is_set():
            if not self._slots.acquire(timeout=self.options.poll):
                continue
            batch = self._next()
            if batch is None:
                self._slots.release()
                if once and not self._in_flight and self._nothing_left():
                    return
                self._pause()
                continue
            self._pulse.hold(batch.jobs)
            while batch.alone and self._in_flight and not self._stop.is_set():
                self._pause()
            with self._settled:
                self._in_flight += 1
            encoding.submit(self._encode, batch, writing)
            while batch.alone and self._in_flight and not self._stop.is_set():
                self._pause()

    def _pause(self) -> None:
        """Until a batch is settled, but no longer than the time between two looks."""
        with self._settled:
            self._settled.wait(self.options.poll)

    def _next(self) -> Batch | None:
        try:
            return self._claims.next()
        except BaseException:
            self._slots.release()
            raise

    def _nothing_left(self) -> bool:
        waiting = self._claims.waiting()
        if waiting is None:
            return True
        for error in self._claims.errors:
            raise error
        return False

    def _encode(self, batch: Batch, writing: ThreadPoolExecutor) -> None:
        """In a thread of its own: encode, and hand over to the writer."""
        try:
            if self._cut.is_set():
                raise Stopped
            start = time.perf_counter()
            encoded = encode(batch, self.options)
            seconds = time.perf_counter() - start
            self._claims.pace.learn(batch.target.id, len(batch.rows), seconds)
            writing.submit(self._write, batch, encoded, seconds)
        except (EncoderUnavailable, Stopped) as error:
            if isinstance(error, EncoderUnavailable):
                self._claims.send_away(batch.target, EncoderNotFound(str(error)))
            writing.submit(self._give_back, batch)
        except BaseException as error:
            self._fail(error)
            self._done()

    def _write(self, batch: Batch, encoded: Encoded, seconds: float) -> None:
        with self._settling(batch) as session:
            try:
                settled = session.run(settle_batch, self._pulse.worker, batch, encoded)
            except TargetChanged:
                self._claims.reload()
                session.run(release, self._pulse.worker, batch.jobs)
            else:
                self._report(batch, settled, seconds)

    def _report(self, batch: Batch, settled: Settled, seconds: float) -> None:
        self.totals.add(settled)
        log.info(
            "%s: %d embedded, %d gone, %d failed, %d kept in %.2f s",
            *(batch.target.name, settled.written, settled.gone, settled.failed, settled.kept, seconds),
            extra={
                "embedding": batch.target.name,
                "embedded": settled.written,
                "gone": settled.gone,
                "failed": settled.failed,
                "kept": settled.kept,
                "seconds": round(seconds, 3),
            },
        )
        if self._observer is not None:
            self._observer(batch.target.name, settled, seconds, len(batch.rows))

    def _give_back(self, batch: Batch) -> None:
        with self._settling(batch) as session:
            session.run(release, self._pulse.worker, batch.jobs)

    @contextmanager
    def _settling(self, batch: Batch) -> Iterator[Session]:
        """A free session; afterwards the batch is off the worker's hands."""
        session = self._writers.get()
        try:
            yield session
            self._pulse.drop(batch.jobs)
        except BaseException as error:
            self._fail(error)
        finally:
            self._writers.put(session)
            self._done()

    def _done(self) -> None:
        with self._settled:
            self._in_flight -= 1
            self._settled.notify_all()
        self._slots.release()

    def _fail(self, error: BaseException) -> None:
        """Stop, and raise from ``run`` what no row and no outage explains. Its jobs are given back."""
        if self._error is None and not isinstance(error, Stopped):
            self._error = error
        self._stop.set()

    def _finish(self) -> bool:
        """Wait for batches that are under way; whether all are done before the grace is over."""
        end = time.monotonic() + self.options.grace
        with self._settled:
            while self._in_flight and time.monotonic() < end and not self._cut.is_set():
                self._settled.wait(0.1)
            return self._in_flight == 0

    def _leave(self) -> None:
        """Take the worker's row away; what it still holds goes back to the queue."""
        held = self._pulse.stop()
        self._reader.close()
        while not self._writers.empty():
            self._writers.get().close()
        try:
            self._pulse.session.run(leave, self._pulse.worker, held)
        except Exception as error:
            log.warning("the worker could not sign off: %s", error)
        finally:
            self._pulse.session.close()
