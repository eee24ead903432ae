"""One embedding, one set of weights: a model that changed under its name is told, not mixed in."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from embeddb.encoders import Encoder
from embeddb.errors import EncoderError
from embeddb.queue.target import QUERIES, Target


def check_fingerprint(connection: Connection[Any], target: Target, encoder: Encoder) -> None:
    """Note the encoder's fingerprint where none is noted yet. Raises EncoderError where another one is."""
    cursor = connection.execute(QUERIES["fingerprint"], {"embedding": target.id, "fingerprint": encoder.fingerprint})
    noted = cursor.fetchone()
    if noted is not None and noted[0] != encoder.fingerprint:
        raise EncoderError(
            f"{target.name}: {encoder!r} has changed under its name (fingerprint {encoder.fingerprint}, and rows were "
            f"embedded with {noted[0]}). Run embeddb backfill {target.name} --everything to embed all rows anew, or "
            "give the worker the old model back"
        )


def note_fingerprint(connection: Connection[Any], target: Target, encoder: Encoder) -> None:
    """From now on this is the encoder's fingerprint. Queue every row, or vectors of two models will be compared."""
    connection.execute(QUERIES["note"], {"embedding": target.id, "fingerprint": encoder.fingerprint})
