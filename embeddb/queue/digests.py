"""Which content of their files rows were embedded from, in ``embeddb.digest``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from embeddb.queue.target import QUERIES, Target
from embeddb.sources.files import FileState


def note_files(connection: Connection[Any], target: Target, files: Mapping[str, FileState | None]) -> None:
    """Record the files of rows, by their keys; None says that there is none. In the caller's transaction."""
    read = {key: state for key, state in files.items() if state is not None}
    if read:
        states = read.values()
        connection.execute(
            QUERIES["note_files"],
            {
                "embedding": target.id,
                "keys": list(read),
                "files": [state.file for state in states],
                "digests": [state.digest for state in states],
                "stamps": [state.stamp for state in states],
            },
        )
