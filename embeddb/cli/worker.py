"""``embeddb worker``: take rows from the queue, encode them and write their vectors, until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from embeddb.cli.output import UrlOption, database_url, err
from embeddb.cli.target import import_path

if TYPE_CHECKING:
    from embeddb.worker import Totals, Worker


class LogFormat(StrEnum):
    """How a worker's log looks."""

    text = "text"
    json = "json"


def command(
    url: UrlOption = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option("--embedding", "-e", help="Work on this one, as table.column; repeatable. By default on all."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Leave when nothing is queued any more.")] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Batches encoded at once; more than 1 helps where encoders are remote.")
    ] = 1,
    rows: Annotated[int, typer.Option(min=1, help="The most rows in a batch.")] = 2048,
    lease: Annotated[float, typer.Option(min=1, help="Seconds after which a dead worker's rows are taken over.")] = 60,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that a batch may take after SIGTERM.")] = 30,
    max_attempts: Annotated[int, typer.Option(min=1, help="Attempts before a row is recorded as failed.")] = 8,
    load: Annotated[
        list[str] | None,
        typer.Option("--import", help="Encoders of your own, as package.module:Base or :encoder; repeatable."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port.", show_default=False)
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Lines for people, or JSON for machines.")] = LogFormat.text,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Embed queued rows. Start as many as you like, on any host.

    SIGTERM or Ctrl-C: finish what is being encoded, give the rest back, and leave; a second time: leave at once.
    """
    from embeddb.worker import Options, Worker
    from embeddb.worker.metrics import Metrics

    set_up_log(log_format, log_level)
    options = Options(concurrency=concurrency, rows=rows, lease=lease, grace=grace, max_attempts=max_attempts)
    metrics = None
    if metrics_port is not None:
        metrics = Metrics()
        metrics.serve(metrics_port)
    encoders = [encoder for path in load or () for encoder in _encoders(import_path(path))]
    worker = Worker(database_url(url), names=embedding, encoders=encoders, options=options, observer=metrics)
    totals = run_until_stopped(worker, once=once)
    err.print(f"{totals.embedded} rows embedded, {totals.failed} failed.")


def run_until_stopped(worker: Worker, *, once: bool) -> Totals:
    """Run a worker that SIGTERM and SIGINT stop."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        totals = worker.run(once=once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if any(thread.name.startswith("embeddb-encode") and thread.is_alive() for thread in threading.enumerate()):
        # An encoder that does not come back would keep the process; its rows are back in the queue.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    return totals


def set_up_log(log_format: LogFormat, level: str) -> None:
    """Log what embeddb says, from ``level`` on, to the error stream."""
    handler = logging.StreamHandler()
    if log_format is LogFormat.json:
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"})
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if level.upper() not in logging.getLevelNamesMapping():
        raise typer.BadParameter(f"there is no log level {level!r}: DEBUG, INFO, WARNING or ERROR")
    logger = logging.getLogger("embeddb")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def _encoders(found: object) -> list:  # type: ignore[type-arg]
    from embeddb.encoders import resolve
    from embeddb.orm import declared

    if hasattr(found, "metadata") or hasattr(found, "tables"):
        return [declaration.encoder for declaration in declared(found)]
    return [resolve(found)]  # type: ignore[arg-type]
