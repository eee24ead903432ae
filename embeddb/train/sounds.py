"""Labelled sounds to train on, from the rows of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Connection, LargeBinary, String, select

from embeddb.errors import SourceError
from embeddb.sources.files import Files
from embeddb.sources.inputs import Reader
from embeddb.train.rows import column_of, of_table
from embeddb.waveform import Waveform

#: Rows that are fetched at a time, of names; of those that hold whole files it is one.
_FETCHED: Final = 16


def sounds(
    connection: Connection,
    source: str,
    label: str,
    files: Files | None = None,
    *,
    skipped: Callable[[SourceError], None] | None = None,
) -> Iterator[tuple[Waveform, str]]:
    """(sound, label) of every row that has both, in the order of the primary key, so that a training can go on.

    ``source``: "table.column" of paths or URIs, which are read as ``files`` allows, or of files' bytes. ``label``:
    the column of the same table that says who speaks, or what is said. ``skipped``: told of each file that cannot be
    read, which without it is raised. Raises SourceError where there is no such column.
    """
    column = column_of(connection, source)
    labels = of_table(column.table, label, source)
    if not isinstance(column.type, LargeBinary | String):
        raise SourceError(f"{source} is of type {column.type!r}: give a column of names of files, or of their bytes")
    whole = isinstance(column.type, LargeBinary)
    if files is None and not whole:
        raise SourceError(f"{source} holds names of files: say where they may be read from, Files(folder) or --root")
    keys = list(column.table.primary_key)
    statement = select(column, labels, *keys).where(column.is_not(None), labels.is_not(None))
    read = Reader("audio", files).reading()
    ordered = statement.order_by(*keys)
    fetched = 1 if whole else _FETCHED
    with connection.execute(ordered, execution_options={"yield_per": fetched}) as result:
        for value, name, *key in result:
            try:
                found = read(bytes(value) if whole else value)
            except SourceError as error:
                if whole:  # a file's own name says which it is
                    error = SourceError(f"row {', '.join(map(str, key))}: {error}")
                if skipped is None:
                    raise error from None
                skipped(error)
            else:
                yield found.value, str(name)
