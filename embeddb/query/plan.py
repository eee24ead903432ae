"""What ran, or would run: a statement's SQL, the plan that Postgres has for it, and both in words.

The plan is EXPLAIN's, so the statement itself does not run. What it does with an embedding is read from the plan's
nodes: an index scan with an ``Order By`` is a search of that index, and a sort by a distance is an exact one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Select, text
from sqlalchemy.exc import DBAPIError

from embeddb.query.bind import Bind, connected
from embeddb.query.reasons import BLOCKS, Reason, VectorIndexes, reasons


@dataclass(frozen=True)
class Plan:
    """A statement's SQL, as it goes to the driver, and the lines of its EXPLAIN.

    ``vector_indexes``: the indexes that are searched by distance, by name. ``settings``: what the statement sets for
    its scan, such as ``{"hnsw.ef_search": "64"}``. ``reasons``: for each embedding, how it is searched, and why.
    """

    sql: str
    lines: tuple[str, ...]
    vector_indexes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names of the indexes that are scanned."""
        found = (re.search(r"Index (?:Only )?Scan(?: Backward)? using (\S+)", line) for line in self.lines)
        bitmaps = (re.search(r"Bitmap Index Scan on (\S+)", line) for line in self.lines)
        return tuple(match[1].strip('"') for match in (*found, *bitmaps) if match)

    @property
    def words(self) -> str:
        """The plan in a sentence or two for each embedding."""
        return "\n".join(map(str, self.reasons)) or "no embedding is searched by this statement"

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(bind: Bind, statement: Select[Any], parameters: Mapping[str, Any] | None = None) -> Plan:
    """The plan of ``statement`` in the present transaction: EXPLAIN, so the statement itself does not run.

    ``print(explain(session, statement).words)`` says which index serves it, with which ef_search and iterative scan,
    or that it is exact, and why. The query's text, if it has one, is encoded as it would be. In an async session:
    ``await session.run_sync(explain, statement)``.
    """
    with connected(bind, "explain") as connection:
        return _explain(connection, statement, parameters)


def _explain(connection: Connection, statement: Select[Any], parameters: Mapping[str, Any] | None) -> Plan:
    options = {**connection.get_execution_options(), **statement.get_execution_options()}
    schemas = options.get("schema_translate_map")
    compiled: Any = statement.compile(connection, schema_translate_map=schemas)
    expanded = compiled.construct_expanded_state(dict(parameters or {}))
    processors = {**compiled._bind_processors, **expanded.processors}
    sent: Any = {
        name: processors[name](value) if name in processors else value for name, value in expanded.parameters.items()
    }
    if compiled.positional:
        sent = tuple(sent[name] for name in expanded.positiontup or ())
    sql = expanded.statement
    if schemas:  # as SQLAlchemy puts them in when it executes
        sql = compiled.preparer._render_schema_translates(sql, schemas)
    return explain_sql(connection, sql, sent, statement)


def explain_sql(connection: Connection, sql: str, parameters: Any, statement: Any) -> Plan:
    """The plan of what was compiled from ``statement``, with parameters as the driver takes them."""
    lines = tuple(row[0] for row in connection.exec_driver_sql("EXPLAIN (COSTS OFF) " + sql, parameters))
    found: Any = connection.exec_driver_sql("EXPLAIN (VERBOSE, FORMAT JSON) " + sql, parameters).scalar_one()
    nodes = list(_nodes((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))
    settings = _settings(connection, sql, parameters, nodes)
    # An index has its table's schema.
    scanned = {
        (node.get("Schema"), node["Index Name"]) for node in nodes if "Index Name" in node and "Order By" in node
    }
    known = VectorIndexes.read(connection, statement, scanned)
    searched = tuple(sorted(index.name for index in known.scanned))
    return Plan(sql, lines, searched, settings, tuple(reasons(statement, nodes, known, settings)))


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


_SETTING: Final = re.compile(r"set_config\('((?:hnsw|ivfflat)\.\w+)'::text, '([^']*)'::text, true\)")
_COMPUTED: Final = re.compile(r"set_config\('((?:hnsw|ivfflat)\.\w+)', ")


def _settings(connection: Connection, sql: str, parameters: Any, nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    """What the statement's own set_config calls set: constants as the plan shows them, the rest computed."""
    filters = " ".join(str(node.get("One-Time Filter", "")) for node in nodes)
    settings = dict(_SETTING.findall(filters))
    for match in _COMPUTED.finditer(sql):
        if match[1] in settings:
            continue
        name, (expression, given) = match[1], _alone(_argument(sql, match.end()), parameters)
        try:
            with savepoint(connection):
                settings[name] = str(connection.exec_driver_sql("SELECT " + expression, given).scalar_one())
        except DBAPIError:  # it needs a row of the statement's
            settings[name] = "computed"
    return settings


def _alone(expression: str, parameters: Any) -> tuple[str, Any]:
    """An expression of a statement as one by itself: numbered parameters count from 1, and are its own alone."""
    if isinstance(parameters, Mapping):
        return expression, parameters
    used: list[int] = []

    def renumber(mark: re.Match[str]) -> str:
        used.append(int(mark[1]))
        return f"${len(used)}"

    expression = re.sub(r"\$(\d+)", renumber, expression)
    return expression, tuple(parameters[number - 1] for number in used)


def savepoint(connection: Connection) -> AbstractContextManager[Any]:
    """A savepoint, so that an error leaves the transaction as it was; nothing where statements commit by themselves."""
    autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    return nullcontext() if autocommit else connection.begin_nested()


def _argument(sql: str, start: int) -> str:
    """The argument of a call that begins there, up to its comma."""
    depth, quoted = 0, False
    for position in range(start, len(sql)):
        character = sql[position]
        if character == "'":
            quoted = not quoted
        elif not quoted and character == "(":
            depth += 1
        elif not quoted and character == ")":
            depth -= 1
        elif not quoted and character == "," and depth == 0:
            return sql[start:position]
    return sql[start:]


def assert_uses_index(
    bind: Bind,
    statement: Select[Any],
    index: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    planner: bool = False,
) -> Plan:
    """Raise AssertionError, with the plan and a remedy, unless a vector index serves the statement; else its plan.

    ``index``: the one that must, by name. A test's table is small, and the planner does well to read it whole: so
    what is asked is whether the statement *can* be served, with sequential scans and sorts made dear for the moment.
    ``planner=True``: whether the planner does choose the index, with the rows and statistics that there are.

    In an async session: ``await session.run_sync(assert_uses_index, statement)``.
    """
    with connected(bind, "assert_uses_index") as connection:
        plan = _explain(connection, statement, parameters)
        if not planner and not _serves(plan, index):
            with _preferring_indexes(connection):
                plan = _explain(connection, statement, parameters)
    if _serves(plan, index):
        return plan
    wanted = "a vector index" if index is None else f"the index {index}"
    raise AssertionError(f"{wanted} does not serve this statement.\n{plan.words}\n\nThe plan:\n{plan}\n\n{plan.sql}")


def _serves(plan: Plan, index: str | None) -> bool:
    return bool(plan.vector_indexes) if index is None else index in plan.vector_indexes


@contextmanager
def _preferring_indexes(connection: Connection) -> Iterator[None]:
    savepoint = connection.begin_nested()
    try:
        connection.execute(text(BLOCKS["prefer_indexes"]))
        yield
    finally:
        savepoint.rollback()
