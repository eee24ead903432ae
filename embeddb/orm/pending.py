"""Which instances a flush must embed, and the vectors they get: one batch per encoder.

Inputs are read from the instances as they will be written, so that a row's vector and its sources go to the
database in one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.sql import ClauseElement

from embeddb.encoders import Encoder, Progress
from embeddb.errors import EncoderError, SourceError
from embeddb.orm.declaration import Declaration, declarations_of
from embeddb.orm.defaults import UNREADABLE, insert_default
from embeddb.orm.encode import encode_rows
from embeddb.orm.following import check_serving
from embeddb.orm.handover import hand_over
from embeddb.orm.mode import current_mode
from embeddb.orm.stored import stored_vectors
from embeddb.sources.inputs import Reader
from embeddb.vectors import Vector, check_vector

_INFO_KEY: Final = "embeddb"


class _Embedded(NamedTuple):
    """What the last flush made of an instance; kept in its state to tell our vectors from the caller's."""

    located: str | bytes | None
    vector: Vector | None


@dataclass(slots=True)
class Pending:
    """One vector of one row, to be made from the values of its sources."""

    instance: Any  # held, for a session holds its rows weakly once they are flushed
    declaration: Declaration
    values: Sequence[Any]
    located: str | bytes | None

    @property
    def name(self) -> str:
        """What an error calls it."""
        return f"{self.declaration.name} of {describe(inspect(self.instance))}"

    def assign(self, vector: Vector | None) -> None:
        """Set the attribute, and remember what it was made from."""
        info = inspect(self.instance).info
        info.setdefault(_INFO_KEY, {})[self.declaration.key] = _Embedded(self.located, vector)
        setattr(self.instance, self.declaration.key, vector)


def embed_instances(session: Session, instances: Iterable[Any], progress: Progress | None = None) -> list[Pending]:
    """Give every instance the vectors that its next flush must write; returns what was given.

    New rows without a vector, and rows whose sources changed, are embedded, each encoder in one batch; a vector
    that the caller set is checked and kept. Raises EncoderError or SourceError naming rows, with nothing changed.
    """
    pendings = list(_collect(session, instances))
    embed_pendings(session, pendings, progress)
    return pendings


def embed_pendings(session: Session, pendings: Iterable[Pending], progress: Progress | None = None) -> None:
    """Embed, each encoder in one batch, and assign when every encoder has succeeded."""
    batches: dict[tuple[Encoder, Reader, str], list[Pending]] = {}
    done: list[tuple[Pending, Vector | None]] = []
    for pending in pendings:
        if pending.located is None:
            done.append((pending, None))
        else:
            declaration = pending.declaration
            batch = (declaration.encoder, declaration.inputs.reader, declaration.settings.on_error)
            batches.setdefault(batch, []).append(pending)
    for (encoder, reader, on_error), rows in batches.items():
        try:
            vectors = _encode(encoder, reader, rows, progress)
            check_serving(session, {pending.declaration for pending in rows})
        except (EncoderError, SourceError) as error:
            if on_error == "raise":
                raise
            # Nothing is assigned: a new row's vector is NULL, a changed row's is what the trigger makes of it.
            hand_over(session, {pending.declaration for pending in rows}, error)
        else:
            done += zip(rows, vectors, strict=True)
    for pending, vector in done:
        pending.assign(vector)


def _encode(
    encoder: Encoder, reader: Reader, rows: Sequence[Pending], progress: Progress | None
) -> list[Vector | None]:
    # Named here: a mapped instance is not to be looked at from the thread that encodes.
    names = [pending.name for pending in rows]
    located = [pending.located for pending in rows]
    return encode_rows(encoder, reader, located, name=names.__getitem__, progress=progress)


def stale(pendings: Iterable[Pending]) -> Iterator[tuple[Any, Declaration]]:
    """Those whose sources were changed after they were embedded; to be made anew."""
    for pending in pendings:
        held = inspect(pending.instance).dict
        keys = pending.declaration.source_keys
        if any(key in held and held[key] != value for key, value in zip(keys, pending.values, strict=True)):
            yield pending.instance, pending.declaration


def changed_late(flushed: Iterable[Any]) -> Iterator[tuple[Any, Declaration]]:
    """Those whose sources only a mapper's ``before_update`` has changed: this flush wrote no vector of theirs."""
    for instance in flushed:
        state: InstanceState[Any] = inspect(instance)
        if not state.mapper.dispatch.before_update:
            continue
        for declaration in declarations_of(state.mapper):
            if _changed(state, declaration) and not state.attrs[declaration.key].history.added:
                yield instance, declaration


def _collect(session: Session, instances: Iterable[Any]) -> Iterator[Pending]:
    instances = list(instances)
    along = _came_along(session, instances)
    for instance in instances:
        state: InstanceState[Any] = inspect(instance)
        for declaration in declarations_of(state.mapper):
            brought = (state, declaration) not in along and _brought(state, declaration)
            if brought or not _due(state, declaration):
                continue
            pending = _pending(instance, declaration)
            made = state.info.get(_INFO_KEY, {}).get(declaration.key)
            unchanged = made is not None and made.located == pending.located
            if not (unchanged and made.vector is state.dict.get(declaration.key, made)):
                yield pending


def _pending(instance: Any, declaration: Declaration) -> Pending:
    state: InstanceState[Any] = inspect(instance)
    values = [
        _read_source(state, instance, key, column)
        for key, column in zip(declaration.source_keys, declaration.sources, strict=True)
    ]
    # Where only the database will know, the old vector may not stay, it would be stale; to the trigger a NULL vector
    # is a job.
    known = UNREADABLE not in values
    return Pending(instance, declaration, values, declaration.inputs.locate(values) if known else None)


def _came_along(session: Session, instances: Iterable[Any]) -> set[tuple[InstanceState[Any], Declaration]]:
    """Where a merge brought along the vector of the old sources: it is set beside new ones, and the row has it already.

    What the rows have is not loaded, and read of all of them at once.
    """
    asked: dict[tuple[Mapper[Any], Declaration], list[InstanceState[Any]]] = {}
    for instance in instances:
        state: InstanceState[Any] = inspect(instance)
        if state.key is not None:
            for declaration in declarations_of(state.mapper):
                if _is_set_unseen(state, declaration):
                    asked.setdefault((state.mapper, declaration), []).append(state)
    found = set()
    for (mapper, declaration), states in asked.items():
        stored = stored_vectors(session, mapper, declaration, [state.identity or () for state in states])
        for state in states:
            vector = stored.get(state.identity or ())
            if declaration.column.type.compare_values(vector, state.dict[declaration.key]):
                found.add((state, declaration))
    return found


def _is_set_unseen(state: InstanceState[Any], declaration: Declaration) -> bool:
    """Whether a vector was set beside sources that changed, over one not loaded; in queued mode the trigger sees it."""
    given = state.dict.get(declaration.key)
    if given is None or isinstance(given, ClauseElement) or current_mode(declaration.settings) == "queued":
        return False
    history = state.attrs[declaration.key].history
    return bool(history.added) and not history.deleted and _changed(state, declaration)


def _brought(state: InstanceState[Any], declaration: Declaration) -> bool:
    """Whether the caller brings a vector of their own, which is then checked."""
    given = state.dict.get(declaration.key)
    made = state.info.get(_INFO_KEY, {}).get(declaration.key)
    if given is None or (made is not None and given is made.vector):
        return False
    if state.key is not None:
        if not state.attrs[declaration.key].history.added:
            return False
    elif declaration.key not in state.committed_state and _changed(state, declaration):
        return False  # it came along in a copy made with make_transient
    if not isinstance(given, ClauseElement):
        check_vector(
            given,
            declaration.spec.dim,
            storage=declaration.spec.storage,
            where=f"{declaration.name} of {describe(state)}",
        )
    return True


def _due(state: InstanceState[Any], declaration: Declaration) -> bool:
    """Whether this flush is to embed: a new row, a changed source, or a vector that was set to None."""
    if current_mode(declaration.settings) == "queued":
        return False
    if state.key is None:
        return True
    if _changed(state, declaration):
        return True
    added = state.attrs[declaration.key].history.added
    return bool(added) and next(iter(added)) is None


def _changed(state: InstanceState[Any], declaration: Declaration) -> bool:
    return any(state.attrs[key].history.has_changes() for key in declaration.source_keys)


def _read_source(state: InstanceState[Any], instance: Any, key: str, column: Column[Any]) -> Any:
    if key in state.dict:
        value = state.dict[key]
    elif state.key is not None:
        value = getattr(instance, key)  # expired or deferred: load it
    else:
        value = insert_default(column)
        if value is not None and value is not UNREADABLE:
            setattr(instance, key, value)  # what is embedded must be what is written
    return UNREADABLE if isinstance(value, ClauseElement) else value


def describe(state: InstanceState[Any]) -> str:
    """A row as a person would name it: ``Article(id=7)``, ``a new Article(id=7)``, or ``a new Article``."""
    name = state.mapper.class_.__name__
    keys = state.mapper.primary_key
    values = state.identity or [state.dict.get(state.mapper.get_property_by_column(key).key) for key in keys]
    if None in values:
        return f"a new {name}"
    key = ", ".join(f"{column.key}={value!r}" for column, value in zip(keys, values, strict=True))
    return f"{name}({key})" if state.identity else f"a new {name}({key})"
