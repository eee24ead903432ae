"""Files that were changed under their names: found by their digests, and queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from psycopg import Connection
from psycopg.rows import scalar_row

from embeddb.errors import QueryError, SourceError
from embeddb.queue.digests import note_files
from embeddb.queue.target import QUERIES, Target
from embeddb.sources.files import Files, FileState
from embeddb.sources.fragments import split
from embeddb.sources.inputs import locate
from embeddb.sources.roots import here

#: Rows that are looked at together, and the most that one job holds.
PAGE: Final = 256

Kind = Literal["changed", "missing", "unchanged", "pending"]


class Seen(NamedTuple):
    """What became of a row's file. ``changed``: queued; also if nothing was recorded of it yet. ``detail``: why."""

    key: str
    kind: Kind
    detail: str = ""


class _Row(NamedTuple):
    key: str
    name: str | None
    known: FileState | None
    queued: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class _Looked:
    kind: Kind
    state: FileState | None = None
    detail: str = ""


def rescan(
    connection: Connection[Any],
    target: Target,
    *,
    after: str | None = None,
    concurrency: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Seen]:
    """Compare the files that an embedding's rows name with those that the rows were embedded from.

    A file whose size and times (or ETag) are as recorded is taken to be the same; else its content is read, and where
    that is another one, or none is recorded, the row is queued. So is a row that failed and whose file is another one
    now. A file that cannot be read is reported, and nothing is changed for it. Rows that are queued already, or name
    no file, are passed over.

    In the order of keys, from the one that follows ``after``, the key as JSON; each page of rows is settled before
    its last row is reported, so that a scan that was stopped goes on after the last key it reported. ``concurrency``:
    files that are looked at at once. ``progress``: called with the rows so far. ``connection`` must be in autocommit
    and prepared. Raises QueryError where the embedding's source is no file.
    """
    if target.spec.files is None:
        raise QueryError(f"{target.name}: its sources name no files (a declaration with files=Files(...) does)")
    files = here(Files.from_dict(target.spec.files))
    if after is None:
        connection.execute(target.statement("forget_files"), {"embedding": target.id})
    done = 0
    with ThreadPoolExecutor(concurrency, thread_name_prefix="embeddb-rescan") as pool:
        while keys := _page(connection, target, after):
            rows = _rows(connection, target, keys)
            looked = list(pool.map(lambda row: _look(files, row), rows))
            _settle(connection, target, rows, looked)
            yield from (Seen(row.key, found.kind, found.detail) for row, found in zip(rows, looked, strict=True))
            after = keys[-1]
            done += len(keys)
            if progress is not None:
                progress(done)


def _page(connection: Connection[Any], target: Target, after: str | None) -> list[str]:
    cursor = connection.cursor(row_factory=scalar_row)
    return cursor.execute(target.statement("page"), {"after": after, "limit": PAGE}).fetchall()


def _rows(connection: Connection[Any], target: Target, keys: list[str]) -> list[_Row]:
    found = {}
    cursor = connection.execute(target.statement("files"), {"embedding": target.id, "keys": keys})
    for key, file, digest, stamp, queued, failed, *values in cursor:
        name = locate(values, target.spec.sources)
        known = None if file is None else FileState(file, digest, stamp)
        found[key] = _Row(key, split(name)[0] if isinstance(name, str) else None, known, queued, failed)
    return [found[key] for key in keys if key in found]


def _look(files: Files, row: _Row) -> _Looked:
    if row.queued:
        return _Looked("pending")
    if row.name is None:
        return _Looked("unchanged")
    known = row.known if row.known is not None and row.known.file == FileState.of_name(row.name) else None
    try:
        stamp = files.stamp(row.name)  # before the content, so that a change meanwhile shows the next time
        if known is not None and stamp and stamp == known.stamp:
            return _Looked("unchanged", known)
        state = files.fetch(row.name).state._replace(stamp=stamp)
    except SourceError as error:
        return _Looked("missing", None, str(error))
    if known is None:
        return _Looked("changed", state, "nothing is recorded of this file")
    if state.digest != known.digest:
        return _Looked("changed", state, "its content is another one")
    return _Looked("unchanged", state)


def _settle(connection: Connection[Any], target: Target, rows: Sequence[_Row], looked: Sequence[_Looked]) -> None:
    pairs = list(zip(rows, looked, strict=True))
    changed = [row.key for row, found in pairs if found.kind == "changed"]
    # What failed is tried once for each content.
    failed = {row.key: found.state for row, found in pairs if found.kind == "changed" and row.failed}
    same = [(row.key, found.state.stamp) for row, found in pairs if found.kind == "unchanged" and found.state]
    with connection.transaction():
        if changed:
            connection.execute(QUERIES["queue"], {"embedding": target.id, "keys": changed})
        note_files(connection, target, failed)
        if same:
            keys, stamps = zip(*same, strict=True)
            parameters = {"embedding": target.id, "keys": list(keys), "stamps": list(stamps)}
            connection.execute(QUERIES["checked"], parameters)
