"""How many rows to claim at a time: as many as the encoder does in a few seconds."""

from __future__ import annotations

from embeddb.worker.options import Options

_SMALLEST = 64
_FIRST = 256


class Pace:
    """Rows per batch of each embedding, from the rate of its last batches."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rows: dict[int, int] = {}

    def rows(self, embedding: int) -> int:
        """How many to claim now."""
        return min(self._rows.get(embedding, _FIRST), self._options.rows)

    def learn(self, embedding: int, rows: int, seconds: float) -> None:
        """A batch of so many rows took the encoder so long. At most doubles or halves at a time."""
        before = self.rows(embedding)
        if rows < before / 2:
            return  # too few to tell
        wanted = int(rows / max(seconds, 1e-6) * self._options.batch_seconds)
        self._rows[embedding] = max(min(_SMALLEST, self._options.rows), min(wanted, 2 * before, self._options.rows))
