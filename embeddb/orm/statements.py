"""Embedding the rows of ORM-enabled INSERT and UPDATE statements, and of the legacy bulk methods.

An INSERT gets its vectors before it runs, and so does an UPDATE that gives every source a value. Any other UPDATE is
run first and its rows are embedded after it, in the same transaction, because only the database knows which rows
matched and what their other sources hold.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, literal, null, select
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.engine import Result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.operators import ColumnOperators

from embeddb.encoders import Progress
from embeddb.errors import QueryError
from embeddb.orm.declaration import Declaration, declarations_of
from embeddb.orm.defaults import UNREADABLE, insert_default
from embeddb.orm.mode import current_mode
from embeddb.orm.stored import Due, embed_stored, encode
from embeddb.vectors import check_vector

Row = dict[str, Any]


def embed_statement(state: ORMExecuteState, progress: Progress | None) -> Result[Any] | None:
    """Run an INSERT or UPDATE with its vectors; None where it is none of ours and goes on by itself."""
    mapper = state.bind_mapper
    if mapper is None:
        return None
    statement = state.statement
    declarations = _inline_updated(mapper) if isinstance(statement, Update) else _inline(mapper)
    if not declarations:
        return None
    if isinstance(statement, Insert) and statement.select is None:
        return _run_insert(state, statement, mapper, declarations, progress)
    if isinstance(statement, Update):
        return _run_update(state, statement, mapper, declarations, progress)
    return None


def embed_mappings(session: Session, mapper: Mapper[Any], mappings: Sequence[Row], progress: Progress | None) -> None:
    """Put vectors into dictionaries that are about to be inserted, by attribute names."""
    for declaration in _inline(mapper):
        _embed_rows(session, declaration, mappings, progress)


def embed_updated(
    session: Session, mapper: Mapper[Any], mappings: Sequence[Mapping[str, Any]], progress: Progress | None
) -> None:
    """Embed rows that an UPDATE by primary key has just changed; ``mappings`` are what it was given."""
    attributes = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    due = []
    for declaration in _inline_updated(mapper):
        touched = [row for row in mappings if row.keys() & set(declaration.source_keys) and declaration.key not in row]
        if touched:
            keys = [tuple(row[attribute] for attribute in attributes) for row in touched]
            due.append(Due(declaration, keys, _written(declaration, touched[0])))
    embed_stored(session, mapper, due, progress)


def _inline(mapper: Mapper[Any]) -> list[Declaration]:
    return [d for d in declarations_of(mapper) if current_mode(d.settings) == "inline"]


def _inline_updated(mapper: Mapper[Any]) -> list[Declaration]:
    """Those whose rows an UPDATE may change: of subclasses, too, that live in the same table."""
    found = dict.fromkeys(d for kind in mapper.self_and_descendants for d in _inline(kind))
    return [d for d in found if d.table in mapper.tables]


# --- INSERT ---------------------------------------------------------------------------------------------------


def _run_insert(
    state: ORMExecuteState,
    statement: Insert,
    mapper: Mapper[Any],
    declarations: Iterable[Declaration],
    progress: Progress | None,
) -> Result[Any]:
    given = state.parameters or {}
    constants = _by_attribute(mapper, statement._values or {})
    if statement._multi_values:
        rows = [
            _by_attribute(mapper, row) for many in statement._multi_values for row in _dictionaries(statement, many)
        ]
    else:
        parameters = [given] if isinstance(given, Mapping) else given
        rows = [{**constants, **row} for row in parameters]
    for declaration in declarations:
        _embed_rows(state.session, declaration, rows, progress)
        statement = _follow_conflict(statement, declaration)
    if statement._multi_values:
        statement = statement._generate()
        by_column: list[dict[Any, Any]] = [{_column(mapper, key): row[key] for key in row} for row in rows]
        statement._multi_values = (by_column,)
        return state.invoke_statement(statement=statement)
    if isinstance(given, Mapping) and not given:
        return state.invoke_statement(statement=statement.values(_added(rows[0], constants)))
    if isinstance(given, Mapping):
        return state.invoke_statement(statement=statement, params=_added(rows[0], constants))
    return state.invoke_statement(statement=statement, params=[_added(row, constants) for row in rows])


def _added(row: Row, constants: Row) -> Row:
    return {key: value for key, value in row.items() if key not in constants}


def _embed_rows(session: Session, declaration: Declaration, rows: Sequence[Row], progress: Progress | None) -> None:
    located: list[str | bytes | None] = []
    wanting: list[Row] = []
    for number, row in enumerate(rows, 1):
        vector = row.get(declaration.key)
        if vector is not None:
            if not isinstance(vector, ClauseElement):
                where = f"{declaration.name} of row {number}"
                check_vector(vector, declaration.spec.dim, storage=declaration.spec.storage, where=where)
            continue
        wanting.append(row)
        located.append(_locate(declaration, row))
    vectors = encode(session, declaration, located, progress) or [None] * len(located)
    for row, vector in zip(wanting, vectors, strict=True):
        row[declaration.key] = vector


def _locate(declaration: Declaration, row: Row) -> str | bytes | None:
    values = []
    for key, column in zip(declaration.source_keys, declaration.sources, strict=True):
        if key not in row:
            default = insert_default(column)
            if default is UNREADABLE:
                return None
            if default is not None:
                row[key] = default  # what is embedded must be what is written
        value = row.get(key)
        value = value.value if isinstance(value, BindParameter) else value
        if isinstance(value, ClauseElement):
            return None
        values.append(value)
    return declaration.inputs.locate(values)


def _follow_conflict(statement: Insert, declaration: Declaration) -> Insert:
    """Let ON CONFLICT DO UPDATE write the vector as well, where it writes sources.

    Only if it takes every source from the proposed row is that row's vector right for the existing one; else the
    vector becomes NULL, which the trigger takes for a job.
    """
    clause = statement._post_values_clause
    if not isinstance(clause, OnConflictDoUpdate):
        return statement
    changes = dict(clause.update_values_to_set)  # pairs in SQLAlchemy 2.0, a dictionary in 2.1
    columns = [declaration.table.c.get(key, key) if isinstance(key, str) else key for key in changes]
    written = dict(zip((getattr(column, "name", column) for column in columns), changes.values(), strict=True))
    names = set(declaration.source_names)
    if declaration.column.name in written or not names & written.keys():
        return statement
    from_proposed = all(
        getattr(getattr(written.get(name), "table", None), "name", None) == "excluded" and written[name].name == name
        for name in names
    )
    statement = statement._generate()
    clause = copy.copy(clause)
    value = statement.excluded[declaration.column.key] if from_proposed else null()  # type: ignore[attr-defined]
    changes[declaration.column] = value
    clause.update_values_to_set = type(clause.update_values_to_set)(changes.items())
    statement._post_values_clause = clause
    return statement


# --- UPDATE ---------------------------------------------------------------------------------------------------


def _run_update(
    state: ORMExecuteState,
    statement: Update,
    mapper: Mapper[Any],
    declarations: Sequence[Declaration],
    progress: Progress | None,
) -> Result[Any] | None:
    given = state.parameters or {}
    if not isinstance(given, Mapping):  # ORM bulk UPDATE by primary key
        result = state.invoke_statement()
        embed_updated(state.session, mapper, given, progress)
        return result
    values = dict(statement._values or getattr(statement, "_ordered_values", None) or ())
    values |= {key: value for key, value in given.items() if key in mapper.column_attrs}
    written = _by_attribute(mapper, values)
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


# --- keys -----------------------------------------------------------------------------------------------------


def _dictionaries(statement: Insert, many: Sequence[Any]) -> Iterable[Mapping[Any, Any]]:
    """The rows of one ``values([...])``, which may be dictionaries or tuples in the table's order."""
    for row in many:
        yield row if isinstance(row, Mapping) else dict(zip(statement.table.c, row, strict=False))


def _by_attribute(mapper: Mapper[Any], row: Mapping[Any, Any]) -> Row:
    """``row`` with attribute names for keys, whether it came with names, columns or attributes."""
    return {_attribute(mapper, key): value for key, value in row.items()}


def _attribute(mapper: Mapper[Any], key: Any) -> str:
    if isinstance(key, str):
        if key in mapper.column_attrs:
            return key
        key = mapper.local_table.c[key]
    elif not isinstance(key, Column):
        key = key.__clause_element__()
        key = mapper.local_table.c.get(key.key, key)
    return mapper.get_property_by_column(key).key


def _column(mapper: Mapper[Any], attribute: str) -> Column[Any]:
    column = mapper.column_attrs[attribute].columns[0]
    assert isinstance(column, Column)
    return column
