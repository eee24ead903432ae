"""Rows of an embedding, drawn at random and read in binary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    Connection,
    Float,
    MetaData,
    Table,
    bindparam,
    func,
    literal,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import NoSuchTableError, ProgrammingError
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.operators import custom_op

from embeddb.encoders.protocol import Vectors
from embeddb.errors import CatalogError, QueryError
from embeddb.insight.present import index_present
from embeddb.metrics import METRICS, MetricName, Storage
from embeddb.orm.declaration import INFO_KEY, Declaration
from embeddb.orm.reflection import find_spec
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.spec import EmbeddingSpec, VectorIndex

#: Above so many rows they are drawn from random pages instead of from all pages.
FEW: Final = 200_000
#: Rows read from pages for one that is kept, so that a page gives few of them.
THINNED: Final = 4

#: Rows whose exact search takes longer than the way to the server.
_TIMED: Final = 200
#: insufficient_privilege, by the table of error codes in the manual of Postgres.
_FORBIDDEN: Final = "42501"

_TYPE: Final = text(
    "SELECT t.typname, a.atttypmod FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column"
)
_ROWS: Final = text("SELECT reltuples FROM pg_catalog.pg_class WHERE oid = CAST(:table AS regclass)")


@dataclass(frozen=True, slots=True)
class Subject:
    """An embedding that is looked into.

    ``table``, ``column``: as the database has them. ``spec``: what is declared or registered, if anything. ``metric``,
    ``index``: as declared, or else as the index has it that is there; cosine where there is none.
    """

    name: str
    table: Table
    column: Column[Any]
    dim: int
    storage: Storage
    metric: MetricName
    index: VectorIndex | None
    spec: EmbeddingSpec | None

    @property
    def vector(self) -> Any:
        """The column, read as float32 arrays."""
        return type_coerce(self.column, (HALFVEC if self.storage == "halfvec" else VECTOR)(self.dim))


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows that were drawn: ``vectors`` of shape (n, dim), float32, and the other columns' ``values`` by row."""

    subject: Subject
    rows: int
    vectors: Vectors
    values: Sequence[tuple[Any, ...]]


def subject_of(connection: Connection, embedding: str | AnyEmbedding) -> Subject:
    """What is meant by ``table.column``, ``schema.table.column`` or a declared attribute.

    A name need not be registered: any column of type vector or halfvec will do. Raises QueryError where there is none.
    """
    spec: EmbeddingSpec | None = None
    metric: MetricName = "cosine"
    index: VectorIndex | None = None
    if isinstance(embedding, str):
        *schema, table_name, column_name = embedding.split(".") if embedding.count(".") in (1, 2) else ("", "")
        spec = _registered(connection, embedding)
        if spec is not None:
            schema, table_name, column_name = [spec.schema] if spec.schema else [], spec.table, spec.column
            metric, index = spec.metric, spec.index
        if not table_name or not column_name:
            raise QueryError(f"{embedding!r} is neither table.column nor schema.table.column")
        try:
            table = Table(table_name, MetaData(), schema=schema[0] if schema else None, autoload_with=connection)
        except NoSuchTableError:
            raise QueryError(f"{embedding}: there is no table {table_name!r} in this database") from None
    else:
        found = resolve(embedding, "this")
        if found.settings.metric_name not in ("cosine", "l2", "inner_product", "l1"):
            raise QueryError(f"{found.column} holds bits, and this takes vectors")
        table, column_name = cast(Table, found.table), str(found.column.name)
        metric, index = found.settings.metric_name, found.settings.index
        declaration = table.c[str(found.column.key)].info.get(INFO_KEY)
        spec = declaration.spec if isinstance(declaration, Declaration) else None
    name = embedding if isinstance(embedding, str) else f"{table.fullname}.{column_name}"
    quoted = connection.dialect.identifier_preparer.format_table(table)
    if spec is None and isinstance(embedding, str):
        metric, index = index_present(connection, quoted, column_name)
    kind = connection.execute(_TYPE, {"table": quoted, "column": column_name}).one_or_none()
    if kind is not None and kind.typname in ("bit", "varbit"):
        raise QueryError(f"{name} holds bits, and this takes vectors")
    if kind is None or kind.typname not in ("vector", "halfvec"):
        raise QueryError(f"{name} is no column of vectors in this database")
    column = next(column for column in table.columns if column.name == column_name)
    if kind.atttypmod < 1:
        raise QueryError(f"{name} has no fixed dimensions: declare them, as vector(384)")
    return Subject(name, table, column, kind.atttypmod, kind.typname, metric, index, spec)


def _registered(connection: Connection, name: str) -> EmbeddingSpec | None:
    """What nobody registered is looked into all the same, and by a role that may not read the catalog too."""
    try:
        with connection.begin_nested():
            return find_spec(connection, name)
    except CatalogError:
        return None
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _FORBIDDEN:
            raise
        return None


def scan_seconds(connection: Connection, subject: Subject, query: Vectors, rows: int = 20_000) -> float | None:
    """Seconds that an exact search takes by row: the median of three over so many rows of the table, once warm.

    What a search takes that reads one row is taken off. None where there are too few rows to tell the two apart.
    """
    one, many = (_timed(connection, subject, query, limit) for limit in (1, rows))
    return max(many[0] - one[0], 0.1 * many[0]) / many[1] if many[1] >= _TIMED else None


def _timed(connection: Connection, subject: Subject, query: Vectors, limit: int) -> tuple[float, int]:
    """The median of three exact searches of so many rows, in seconds, and the rows that there were."""
    some = select(subject.vector.label("vector")).where(subject.column.is_not(None)).limit(limit).subquery()
    asked: Any = bindparam("query", query, type_=subject.vector.type)
    distance: Any = BinaryExpression(some.c.vector, asked, custom_op(METRICS[subject.metric].operator), type_=Float())
    search = select(func.count(), func.min(distance))
    times = []
    for _ in range(4):
        began = time.perf_counter()
        read = int(connection.execute(search).one()[0])
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])), read


def draw(
    connection: Connection, subject: Subject, size: int, *, columns: Sequence[Any] = (), seed: int = 0, least: int = 1
) -> Sample:
    """Up to ``size`` rows with a vector at random, and the values of ``columns`` along.

    Raises QueryError where there is none, unless ``least`` is 0.

    ``rows`` of the sample is the count of those with a vector, or the planner's estimate in a large table.
    """
    quoted = connection.dialect.identifier_preparer.format_table(subject.table)
    estimate = float(connection.scalar(_ROWS, {"table": quoted}) or 0)
    source: Any = subject.table
    if estimate > FEW:
        rows = round(estimate)
        source = source.tablesample(func.system(min(100.0, 100 * THINNED * size / estimate)), seed=literal(seed))
    else:
        rows = connection.scalar(select(func.count(subject.column))) or 0
    held = source.c[subject.column.key]
    vector: Any = type_coerce(held, subject.vector.type)
    connection.execute(select(func.setseed(literal(seed % 1000 / 1000))))
    drawn = connection.execute(
        select(vector, *(source.c[column.key] for column in columns))
        .where(held.is_not(None))
        .order_by(func.random())
        .limit(size)
    ).all()
    if len(drawn) < least:
        raise QueryError(f"{subject.name} has no row with a vector")
    vectors: NDArray[np.float32] = np.array([row[0] for row in drawn], np.float32).reshape(-1, subject.dim)
    return Sample(subject, max(rows, len(drawn)), vectors, [tuple(row[1:]) for row in drawn])
