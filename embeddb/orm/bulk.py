"""``bulk_load``: many rows whose vectors are there already, by COPY in binary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine, Table, inspect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from embeddb.encoders import Progress
from embeddb.errors import LoadError
from embeddb.orm.copy_columns import CopyColumn, Target, copy_columns
from embeddb.orm.copy_rows import Where, pack_rows
from embeddb.orm.copy_statement import CopyFrom, check_driver, copy_from

Connectable = Engine | Connection | Session | scoped_session[Any]
AsyncConnectable = AsyncEngine | AsyncConnection | AsyncSession | async_scoped_session[Any]
Rows = Iterable[Mapping[str, Any]] | Iterable[Sequence[Any]] | Mapping[str, Sequence[Any]]

#: Rows that are packed and sent at a time: while the server reads one chunk, the next is packed.
CHUNK: Final = 1000


def bulk_load(
    connectable: Connectable,
    target: type[Any] | Table,
    rows: Rows,
    *,
    columns: Sequence[Any] | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> int:
    """Load ``rows`` into ``target`` by COPY, and return how many the table took.

    ``target``: a mapped class, whose columns are named by its attributes, or a Table. ``rows``: mappings, each with
    the same keys; or tuples in the order of ``columns``; or, fastest, one mapping from each key to a whole column,
    a list or an array, which for vectors has shape (n, dim). None is NULL; a column that is left out gets its
    default. ``progress``: called as ``progress(done, total)`` after each ``chunk`` of rows; ``total`` is what is
    done where ``rows`` has no length.

    On a Session, which is flushed first, or a Connection the rows belong to its transaction; on an Engine they have
    one of their own. All are loaded or none: after an error the transaction is to be rolled back. Triggers fire.
    Hooks do not: nothing is embedded here.

    Raises LoadError or VectorError, naming row, key and column, for what a column cannot take, and SQLAlchemy's
    errors for what the server refuses. Needs psycopg or asyncpg.
    """
    place = Target.of(target)
    batches = _batches(rows, columns, chunk)
    if batches is None:
        return 0
    given = [place.column(key) for key in batches.keys]
    with _connection(connectable, target) as connection:
        check_driver(connection.dialect)
        copied = copy_columns(connection, place, given)
        packed = _pack(place, copied, batches, progress)
        return copy_from(connection, CopyFrom(place.table, [copy.column for copy in copied], packed))


async def bulk_load_async(
    connectable: AsyncConnectable,
    target: type[Any] | Table,
    rows: Rows,
    *,
    columns: Sequence[Any] | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> int:
    """``bulk_load`` for asyncio. Other tasks go on while a chunk is on its way; packing one takes milliseconds."""

    def load(connection: Connection | Session) -> int:
        return bulk_load(connection, target, rows, columns=columns, progress=progress, chunk=chunk)

    if isinstance(connectable, AsyncEngine):
        async with connectable.begin() as connection:
            return await connection.run_sync(load)
    session = connectable() if isinstance(connectable, async_scoped_session) else connectable
    return await session.run_sync(load)


def _connection(connectable: Connectable, target: type[Any] | Table) -> AbstractContextManager[Connection]:
    if isinstance(connectable, scoped_session):
        connectable = connectable()
    if isinstance(connectable, Session):
        connectable.flush()  # the new rows may refer to some that wait there
        bind = {"clause": target} if isinstance(target, Table) else {"mapper": inspect(target)}
        return nullcontext(connectable.connection(bind_arguments=bind))
    if isinstance(connectable, Engine):
        return connectable.begin()
    if isinstance(connectable, Connection):
        return nullcontext(connectable)
    raise LoadError(f"bulk_load takes an Engine, Connection or Session, not {connectable!r}; see bulk_load_async")


# --- rows, turned into columns --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Batches:
    """``chunks``: for each chunk of rows its columns, in the order of ``keys``."""

    keys: Sequence[Any]
    chunks: Iterator[list[Sequence[Any]]]
    total: int | None


def _batches(rows: Rows, columns: Sequence[Any] | None, size: int) -> _Batches | None:
    """None where there are no rows."""
    if isinstance(rows, Mapping):
        return _from_columns(rows, size)
    total = len(rows) if isinstance(rows, Sized) else None
    iterator = iter(rows)
    first: list[Any] = list(islice(iterator, size))
    if not first:
        return None
    if isinstance(first[0], Mapping):
        keys: Sequence[Any] = list(first[0])
        return _Batches(keys, _from_mappings(keys, first, iterator, size), total)
    if columns is None:
        raise LoadError("rows that are no mappings need columns=[...], the names that their values stand for")
    return _Batches(columns, _from_tuples(len(columns), first, iterator, size), total)


def _from_columns(rows: Mapping[str, Sequence[Any]], size: int) -> _Batches | None:
    whole = [_sliceable(values) for values in rows.values()]
    lengths = {len(values) for values in whole}
    if len(lengths) > 1:
        shown = ", ".join(f"{key}: {len(values)}" for key, values in zip(rows, whole, strict=True))
        raise LoadError(f"columns of different lengths cannot be rows ({shown})")
    total = max(lengths, default=0)
    chunks = ([values[start : start + size] for values in whole] for start in range(0, total, size))
    return _Batches(list(rows), chunks, total) if total else None


def _sliceable(values: Any) -> Any:
    if hasattr(values, "detach"):  # a torch tensor
        values = values.detach().cpu()
        return values.float().numpy() if values.is_floating_point() else values.numpy()
    if isinstance(values, list | tuple):
        return values
    # pandas and polars
    return values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)


def _from_mappings(
    keys: Sequence[str], first: list[Mapping[str, Any]], rest: Iterator[Any], size: int
) -> Iterator[list[Sequence[Any]]]:
    done, chunk = 0, first
    while chunk:
        try:
            columns: list[Sequence[Any]] = [list(map(itemgetter(key), chunk)) for key in keys]
            even = set(map(len, chunk)) == {len(keys)}
        except (KeyError, TypeError):
            even = False
        if not even:
            _refuse_uneven(keys, chunk, done)
        yield columns
        done += len(chunk)
        chunk = list(islice(rest, size))


def _refuse_uneven(keys: Sequence[str], chunk: list[Any], done: int) -> None:
    for number, row in enumerate(chunk, done + 1):
        if not isinstance(row, Mapping):
            raise LoadError(f"row {number} is {type(row).__name__}, and the first one is a mapping")
        if row.keys() != set(keys):
            differing = ", ".join(sorted(map(str, row.keys() ^ set(keys))))
            raise LoadError(
                f"row {number} and the first one differ in {differing}: give all the same keys, None for NULL"
            )


def _from_tuples(width: int, first: list[Any], rest: Iterator[Any], size: int) -> Iterator[list[Sequence[Any]]]:
    done, chunk = 0, first
    while chunk:
        for number, row in enumerate(chunk, done + 1):
            if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != width:
                raise LoadError(f"row {number} is not a tuple of {width} values, as columns= says: {row!r:.60}")
        yield list(zip(*chunk, strict=True))
        done += len(chunk)
        chunk = list(islice(rest, size))


# --- columns, turned into bytes -------------------------------------------------------------------------------


def _pack(place: Target, copied: Sequence[CopyColumn], batches: _Batches, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    for columns in batches.chunks:
        count = len(columns[0])
        values = iter(columns)
        filled = [next(values) if copy.make is None else [copy.make() for _ in range(count)] for copy in copied]
        named = {copy.column: column for copy, column in zip(copied, filled, strict=True)}
        fields = [
            copy.pack(column, _namer(place, copy, named, done)) for copy, column in zip(copied, filled, strict=True)
        ]
        yield pack_rows(fields, count)
        done += count
        if progress is not None:
            progress(done, done if batches.total is None else batches.total)


def _namer(place: Target, copy: CopyColumn, named: Mapping[Any, Sequence[Any]], done: int) -> Where:
    """Names the value at a position: by table, column, row and, where it is given, key."""

    def where(position: int) -> str:
        keys = [f"{column.name}={named[column][position]}" for column in place.table.primary_key if column in named]
        row = f"row {done + position + 1}" + (f" ({', '.join(keys)})" if keys else "")
        return f"{place.table}.{copy.column.name} of {row}"

    return where
