"""The worker: takes jobs from the queue, encodes their rows and writes the vectors, until it is told to stop."""

from __future__ import annotations

from embeddb.worker.drain import drain, drain_async
from embeddb.worker.options import Options
from embeddb.worker.totals import Totals
from embeddb.worker.worker import Worker

__all__ = ["Options", "Totals", "Worker", "drain", "drain_async"]
