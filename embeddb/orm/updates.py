"""Embedding the rows of ORM-enabled UPDATE statements, and of the legacy bulk method.

One that gives every source a value carries its vector. Any other runs first, and its rows are embedded after it, in the
same transaction, because only the database knows which rows matched and what their other sources hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, literal, null, select
from sqlalchemy.engine import Result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import Update
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.operators import ColumnOperators

from embeddb.encoders import Progress
from embeddb.errors import QueryError
from embeddb.orm.declaration import Declaration, declarations_of
from embeddb.orm.defaults import UNREADABLE
from embeddb.orm.mode import inline
from embeddb.orm.row import Row, by_attribute
from embeddb.orm.stored import Due, embed_stored, encode


def _inline(mapper: Mapper[Any]) -> list[Declaration]:
    """Those whose rows an UPDATE may change: of subclasses, too, that live in the same table."""
    found = dict.fromkeys(d for kind in mapper.self_and_descendants for d in inline(kind))
    return [d for d in found if d.table in mapper.tables]


def run_update(state: ORMExecuteState, progress: Progress | None) -> Result[Any] | None:
    """Run an UPDATE and embed its rows; None where it is none of ours and goes on by itself."""
    statement, mapper = state.statement, state.bind_mapper
    if mapper is None or not isinstance(statement, Update):
        return None
    declarations = _inline(mapper)
    if not declarations:
        return None
    given = state.parameters or {}
    if not isinstance(given, Mapping):  # ORM bulk UPDATE by primary key
        result = state.invoke_statement()
        embed_updated(state.session, mapper, given, progress)
        return result
    values = dict(statement._values or getattr(statement, "_ordered_values", None) or ())
    values |= {key: value for key, value in given.items() if key in mapper.column_attrs}
    written = by_attribute(mapper, values)
    due = [d for d in declarations if written.keys() & set(d.source_keys) and d.key not in written]
    if not due:
        return None
    statement, due = _embed_given(state, statement, mapper, written, due, progress)
    if not due:
        return state.invoke_statement(statement=statement)
    _refuse_returned_vectors(statement, due)
    matched = _lock(state, statement, mapper, written)
    result = state.invoke_statement(statement=statement)
    if statement._returning:
        result = result.freeze()()  # loads the entities, whose vectors are then made anew
    embed_stored(state.session, mapper, [Due(one, matched, _written(one, written)) for one in due], progress)
    return result


def _embed_given(
    state: ORMExecuteState,
    statement: Update,
    mapper: Mapper[Any],
    written: Row,
    due: Sequence[Declaration],
    progress: Progress | None,
) -> tuple[Update, list[Declaration]]:
    """The statement with the vectors of sources that it gives, all of them, as values; and those that are left."""
    left = []
    # As SQLAlchemy 2.0 and 2.1 have ordered_values(), which takes no more of them.
    ordered = getattr(statement, "_ordered_values", None) or getattr(statement, "_maintain_values_ordering", False)
    for declaration in due:
        values = [_value(written.get(key, null()), state.parameters or {}) for key in declaration.source_keys]
        # A subclass's vector is not for all rows of the table.
        own = declaration.table is mapper.local_table and declaration in declarations_of(mapper)
        if UNREADABLE in values or not own or ordered:
            left.append(declaration)
            continue
        vectors = encode(state.session, declaration, [declaration.inputs.locate(values)], progress)
        if vectors is not None:
            statement = statement.values({declaration.column: vectors[0]})
    return statement, left


def _value(given: Any, parameters: Any) -> Any:
    """What an UPDATE writes, or UNREADABLE where the database or the caller's parameters decide."""
    if isinstance(given, BindParameter) and not given.required and given.key not in parameters:
        return given.effective_value
    is_expression = isinstance(given, ClauseElement) or hasattr(given, "__clause_element__")
    return UNREADABLE if is_expression else given


def _written(declaration: Declaration, attributes: Collection[str]) -> Column[Any]:
    """A source that is among these attributes."""
    pairs = zip(declaration.source_keys, declaration.sources, strict=True)
    return next(column for key, column in pairs if key in attributes)


def _lock(state: ORMExecuteState, statement: Update, mapper: Mapper[Any], written: Row) -> list[tuple[Any, ...]]:
    """Lock the rows that an UPDATE is about to change; gives the primary keys that they will have."""
    keys: list[Any] = []
    for column in mapper.primary_key:
        attribute = mapper.get_property_by_column(column).key
        value = written.get(attribute, getattr(mapper.class_, attribute))
        keys.append(value if isinstance(value, ColumnOperators) else literal(value, column.type))
    lock = select(*keys).where(*statement._where_criteria).with_for_update()
    rows = state.session.execute(lock, state.parameters, bind_arguments=state.bind_arguments)
    return [tuple(row) for row in rows]


def _refuse_returned_vectors(statement: Update, due: Sequence[Declaration]) -> None:
    for column in statement._returning:
        for declaration in due:
            if isinstance(column, ColumnElement) and declaration.column in column.base_columns:
                raise QueryError(
                    f"UPDATE … RETURNING {declaration.name} would give the vector of the old sources, for it is made "
                    "anew after them: leave it out, and select it after the update"
                )


def embed_updated(
    session: Session, mapper: Mapper[Any], mappings: Sequence[Mapping[str, Any]], progress: Progress | None
) -> None:
    """Embed rows that an UPDATE by primary key has just changed; ``mappings`` are what it was given."""
    attributes = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    due = []
    for declaration in _inline(mapper):
        touched = [row for row in mappings if row.keys() & set(declaration.source_keys) and declaration.key not in row]
        if touched:
            keys = [tuple(row[attribute] for attribute in attributes) for row in touched]
            due.append(Due(declaration, keys, _written(declaration, touched[0])))
    embed_stored(session, mapper, due, progress)
