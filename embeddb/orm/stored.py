"""Embedding rows as they stand in the database: after an UPDATE, or a listener that changed them late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, bindparam, inspect, select, tuple_, update
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from embeddb.encoders import Progress
from embeddb.errors import EncoderError, SourceError
from embeddb.orm.declaration import Declaration
from embeddb.orm.encode import encode_rows
from embeddb.orm.following import check_serving
from embeddb.orm.handover import hand_over
from embeddb.orm.mode import current_mode
from embeddb.vectors import Vector

#: A row's primary key.
Key = tuple[Any, ...]


class Due(NamedTuple):
    """Rows to embed, by their keys; ``written``: a source that has just been written to them."""

    declaration: Declaration
    keys: Sequence[Key]
    written: Column[Any]


#: In one statement: asyncpg takes 32,767, psycopg twice as many.
_PARAMETERS: Final = 30_000


def embed_flushed(session: Session, written: Iterable[tuple[Any, Declaration]], progress: Progress | None) -> None:
    """Embed instances as a flush has just written them."""
    keys: dict[Mapper[Any], dict[Declaration, list[Key]]] = {}
    for instance, declaration in written:
        state = inspect(instance)
        if current_mode(declaration.settings) == "inline":
            keys.setdefault(state.mapper, {}).setdefault(declaration, []).append(tuple(state.identity))
    for mapper, due in keys.items():
        embed_stored(session, mapper, [Due(one, rows, one.sources[0]) for one, rows in due.items()], progress)


def embed_stored(session: Session, mapper: Mapper[Any], due: Sequence[Due], progress: Progress | None) -> None:
    """Embed rows by primary key.

    Where an encoder fails, the vectors that are still of the old sources become NULL before it raises, for the caller
    may commit what was written.
    """
    for number, one in enumerate(due):
        try:
            _embed(session, mapper, one, progress)
        except (EncoderError, SourceError):
            for left in due[number:]:
                _clear(session, mapper, left)
            raise


def stored_vectors(
    session: Session, mapper: Mapper[Any], declaration: Declaration, matched: Sequence[Key]
) -> dict[Key, Vector | None]:
    """The vectors of rows by their primary keys."""
    return {tuple(key): vector for *key, vector in _read(session, mapper, declaration, [declaration.column], matched)}


def encode(
    session: Session, declaration: Declaration, located: Sequence[str | bytes | None], progress: Progress | None
) -> list[Vector | None] | None:
    """The vectors, or None where the encoder failed and the rows are left to the queue."""

    def name(number: int) -> str:
        return f"{declaration.name} of row {number + 1}"

    try:
        vectors = encode_rows(declaration.encoder, declaration.inputs.reader, located, name=name, progress=progress)
        check_serving(session, [declaration])
    except (EncoderError, SourceError) as error:
        if declaration.settings.on_error == "raise":
            raise
        hand_over(session, [declaration], error)
        return None
    return vectors


def _embed(session: Session, mapper: Mapper[Any], due: Due, progress: Progress | None) -> None:
    declaration, keys = due.declaration, mapper.primary_key
    stored = _read(session, mapper, declaration, declaration.sources, due.keys)
    if not stored:
        return
    located = [declaration.inputs.locate(row[len(keys) :]) for row in stored]
    vectors = encode(session, declaration, located, progress)
    if vectors is not None:
        by_key = [column == bindparam(f"key_{n}", type_=column.type) for n, column in enumerate(keys)]
        values: dict[Column[Any], Any] = {declaration.column: bindparam("vector", type_=declaration.column.type)}
        if due.written.computed is None:
            # As it is: a vector beside a source is that source's, so the trigger drops the job that its change made.
            values[due.written] = due.written
        session.connection(bind_arguments={"mapper": mapper}).execute(
            update(declaration.table).where(*by_key, *declaration.rows).values(values),
            [
                {"vector": vector, **{f"key_{n}": row[n] for n in range(len(keys))}}
                for row, vector in zip(stored, vectors, strict=True)
            ],
        )
    for number, row in enumerate(stored):
        known = _known(session, mapper, declaration, tuple(row[: len(keys)]))
        if known is None:
            continue
        if vectors is None or session.in_nested_transaction():  # whose undoing would leave a vector that was set here
            session.expire(known, [declaration.key])
        else:  # an async session cannot load by itself what has expired
            set_committed_value(known, declaration.key, vectors[number])


def _clear(session: Session, mapper: Mapper[Any], due: Due) -> None:
    declaration, connection = due.declaration, session.connection(bind_arguments={"mapper": mapper})
    cleared = update(declaration.table).where(*declaration.rows).values({declaration.column: None})
    for part in _parts(mapper, due.keys):
        connection.execute(cleared.where(part))
    for key in due.keys:
        known = _known(session, mapper, declaration, key)
        if known is not None:
            session.expire(known, [declaration.key])


def _read(
    session: Session,
    mapper: Mapper[Any],
    declaration: Declaration,
    columns: Sequence[Column[Any]],
    matched: Sequence[Key],
) -> list[Any]:
    """Rows by their primary keys: the key, then these columns."""
    connection = session.connection(bind_arguments={"mapper": mapper})
    read = select(*mapper.primary_key, *columns).where(*declaration.rows)
    return [row for part in _parts(mapper, matched) for row in connection.execute(read.where(part))]


def _parts(mapper: Mapper[Any], matched: Sequence[Key]) -> Iterator[ColumnElement[bool]]:
    keys = mapper.primary_key
    step = _PARAMETERS // len(keys)
    for start in range(0, len(matched), step):
        yield tuple_(*keys).in_(matched[start : start + step])


def _known(session: Session, mapper: Mapper[Any], declaration: Declaration, key: Key) -> Any:
    """The session's object of that row, if it holds a vector; else None."""
    known = session.identity_map.get(identity_key(mapper.class_, key))
    return known if known is not None and declaration.key in inspect(known).dict else None
