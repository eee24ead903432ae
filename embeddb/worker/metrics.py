"""A worker's metrics for Prometheus, by prometheus-client; off unless asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddb.errors import EmbeddbError
from embeddb.queue import Settled

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Metrics:
    """Counters and histograms, to be given to a Worker as its observer.

    ``embeddb_rows_total{embedding, outcome}``: rows embedded, gone, failed, and kept for later.
    ``embeddb_batch_rows``, ``embeddb_encode_seconds{embedding}``: sizes of batches, and the encoder's time for one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            from prometheus_client import REGISTRY, Counter, Histogram
        except ImportError as error:
            raise EmbeddbError("metrics need: pip install 'embeddb[metrics]'") from error
        registry = registry or REGISTRY
        label = ("embedding",)
        sizes = (1, 4, 16, 64, 256, 1024, 4096)
        self._rows = Counter("embeddb_rows", "Rows settled.", (*label, "outcome"), registry=registry)
        self._sizes = Histogram("embeddb_batch_rows", "Rows in a batch.", label, buckets=sizes, registry=registry)
        self._seconds = Histogram("embeddb_encode_seconds", "Encoder's time, a batch.", label, registry=registry)

    def __call__(self, embedding: str, settled: Settled, seconds: float, rows: int) -> None:
        """One more batch."""
        outcomes = {
            "embedded": settled.written,
            "gone": settled.gone,
            "failed": settled.failed,
            "kept": settled.kept,
        }
        for outcome, count in outcomes.items():
            self._rows.labels(embedding, outcome).inc(count)
        self._sizes.labels(embedding).observe(rows)
        self._seconds.labels(embedding).observe(seconds)

    def serve(self, port: int) -> None:
        """Answer Prometheus on this port, from a thread."""
        from prometheus_client import start_http_server

        start_http_server(port)
