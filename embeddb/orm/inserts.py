"""Embedding the rows of ORM-enabled INSERT statements, and of the legacy bulk methods, before they are sent."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, null
from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.engine import Result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.elements import BindParameter

from embeddb.encoders import Progress
from embeddb.orm.declaration import Declaration
from embeddb.orm.defaults import UNREADABLE, insert_default
from embeddb.orm.mode import inline
from embeddb.orm.row import Row, by_attribute
from embeddb.orm.stored import encode
from embeddb.vectors import check_vector


def embed_mappings(session: Session, mapper: Mapper[Any], mappings: Sequence[Row], progress: Progress | None) -> None:
    """Put vectors into dictionaries that are about to be inserted, by attribute names."""
    for declaration in inline(mapper):
        _embed_rows(session, declaration, mappings, progress)


def run_insert(state: ORMExecuteState, progress: Progress | None) -> Result[Any] | None:
    """Run an INSERT with its vectors; None where it is none of ours and goes on by itself."""
    statement, mapper = state.statement, state.bind_mapper
    if mapper is None or not isinstance(statement, Insert) or statement.select is not None:
        return None
    declarations = inline(mapper)
    if not declarations:
        return None
    given = state.parameters or {}
    constants = by_attribute(mapper, statement._values or {})
    if statement._multi_values:
        rows = [by_attribute(mapper, row) for many in statement._multi_values for row in _dictionaries(statement, many)]
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


def _dictionaries(statement: Insert, many: Sequence[Any]) -> Iterable[Mapping[Any, Any]]:
    """The rows of one ``values([...])``, which may be dictionaries or tuples in the table's order."""
    for row in many:
        yield row if isinstance(row, Mapping) else dict(zip(statement.table.c, row, strict=False))


def _column(mapper: Mapper[Any], attribute: str) -> Column[Any]:
    column = mapper.column_attrs[attribute].columns[0]
    assert isinstance(column, Column)
    return column
