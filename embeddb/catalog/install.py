"""Installing, upgrading, describing and removing the catalog, over a SQLAlchemy connection or as a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from psycopg import sql
from sqlalchemy import Connection, text

from embeddb.catalog.steps import VECTOR_SCHEMA, current, record, statements, steps
from embeddb.errors import CatalogError, CatalogMissing, CatalogOutdated, PgvectorMissing, PgvectorOutdated

#: Older ones lack iterative scans, and lose recall under filters.
MIN_PGVECTOR: Final = (0, 8)

# Functions may refer to each other in any order; their bodies are checked by the tests.
_PREAMBLE: Final = ("SET LOCAL check_function_bodies = off", "SET LOCAL client_min_messages = warning")
# Trigger functions need no right to run; everything else is granted to roles by name.
_CLOSE: Final = (
    "REVOKE ALL ON ALL ROUTINES IN SCHEMA embeddb FROM PUBLIC",
    "SELECT embeddb.refresh(e.id) FROM embeddb.embedding e JOIN pg_catalog.pg_class c ON c.oid = e.relation",
)

# A comment may stand above it. Functions that a DO block makes are not among these.
_FUNCTION: Final = re.compile(
    r"(?:--[^\n]*\n|\s)*CREATE OR REPLACE (?:FUNCTION|PROCEDURE) embeddb\.(\w+).*?\sAS (\$\w*\$)(.*)\2", re.DOTALL
)
_BODIES: Final = text("SELECT proname, prosrc FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace('embeddb')")


@dataclass(frozen=True, slots=True)
class Status:
    """``installed`` and ``available``: the numbers of the last steps; 0 where there is no catalog. ``extension``: it
    came by CREATE EXTENSION."""

    installed: int
    available: int
    pgvector: str
    extension: bool = False

    @property
    def missing(self) -> bool:
        """No catalog at all."""
        return self.installed == 0

    @property
    def outdated(self) -> bool:
        """The database is behind this package."""
        return self.installed < self.available


def install(connection: Connection) -> Status:
    """Bring the catalog of this database to this package's version, from nothing or from any earlier version.

    Runs in the caller's transaction; two processes may try at once. Repeating it changes nothing but renews
    functions and views. Raises PgvectorMissing, PgvectorOutdated, or CatalogError where a step that the database
    went through is not the step of that number here.
    """
    _run(connection, "SELECT pg_advisory_xact_lock(hashtext('embeddb.install'))")
    before = status(connection)
    if before.extension:
        before = _update_extension(connection, before)
        if not differing_functions(connection):  # else they are renewed, as anywhere
            return before
    for statement in upgrade_statements(before.installed, _vector_schema(connection)):
        _run(connection, statement)
    return status(connection)


def _update_extension(connection: Connection, before: Status) -> Status:
    """Only the files on the server can add to an extension."""
    if before.outdated:
        _run(connection, "ALTER EXTENSION embeddb UPDATE")
    found = status(connection)
    if found.outdated:
        raise CatalogError(
            "this database's catalog is the extension embeddb, and the server's files of it are older than this "
            "package: write newer ones there (embeddb schema extension), then run ALTER EXTENSION embeddb UPDATE"
        )
    return found


def uninstall(connection: Connection) -> None:
    """Remove the catalog with all it knows, every trigger and function. Tables, columns and vectors stay."""
    _run(connection, "SET LOCAL client_min_messages = warning")
    if connection.scalar(text("SELECT to_regprocedure('embeddb.drop_functions(integer, oid[])')")) is not None:
        _run(connection, "SELECT embeddb.drop_functions(e.id) FROM embeddb.embedding e")
    _run(connection, "DROP SCHEMA IF EXISTS embeddb CASCADE")


def status(connection: Connection) -> Status:
    """Which version this database has; raises like ``install``."""
    version = connection.scalar(text("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'"))
    if version is None:
        raise PgvectorMissing
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_PGVECTOR:
        raise PgvectorOutdated
    extension = bool(connection.scalar(text("SELECT count(*) FROM pg_catalog.pg_extension WHERE extname = 'embeddb'")))
    if connection.scalar(text("SELECT to_regclass('embeddb.step')")) is None:
        return Status(0, len(steps()), version, extension)
    applied = connection.execute(text("SELECT number, hash FROM embeddb.step ORDER BY number")).all()
    known = {step.number: step.hash for step in steps()}
    for number, digest in applied:
        if number in known and known[number] != digest:
            raise CatalogError(
                f"step {number} of this database's catalog is not step {number} of this version of embeddb: "
                "it was installed from an unpublished version; reinstall it (embeddb schema uninstall, then install)"
            )
    return Status(max((number for number, _ in applied), default=0), len(steps()), version, extension)


def require(connection: Connection) -> Status:
    """The status of a catalog that is there and up to date; raises CatalogMissing or CatalogOutdated."""
    found = status(connection)
    if found.missing:
        raise CatalogMissing
    if found.outdated:
        raise CatalogOutdated
    return found


def differing_functions(connection: Connection) -> list[str]:
    """The catalog's functions that are missing, or have another text than this package gives them."""
    schema = _vector_schema(connection)
    quoted = sql.Identifier(schema).as_string(None)  # the scripts of the extension quote it only where it must be
    there = {(name, body.replace(quoted, schema)) for name, body in connection.execute(_BODIES).all()}
    made = (_FUNCTION.match(statement) for statement in upgrade_statements(len(steps()), schema))
    texts = [(match[1], match[3].replace(quoted, schema)) for match in made if match is not None]
    return sorted({name for name, body in texts if (name, body) not in there})


def upgrade_statements(installed: int = 0, vector_schema: str = "public") -> Iterator[str]:
    """The statements from version ``installed`` (0: none) to this one, to run in one transaction."""
    place = sql.Identifier(vector_schema).as_string(None)
    yield from _PREAMBLE
    for step in steps()[installed:]:
        yield from statements(step.text.replace(VECTOR_SCHEMA, place))
        yield record(step)
    for file in current():
        yield from statements(file.replace(VECTOR_SCHEMA, place))
    yield from _CLOSE


def script(installed: int = 0, vector_schema: str = "public") -> str:
    """The same as a script that runs in psql unchanged."""
    body = ";\n\n".join(upgrade_statements(installed, vector_schema))
    return f"BEGIN;\n\n{body};\n\nCOMMIT;\n"


def _vector_schema(connection: Connection) -> str:
    schema = connection.scalar(
        text(
            "SELECT n.nspname FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace"
            " WHERE x.extname = 'vector'"
        )
    )
    return str(schema)


def _run(connection: Connection, statement: str) -> None:
    # Without parameters a driver reads no % and no : in the text.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
