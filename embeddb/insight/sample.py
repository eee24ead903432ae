"""Rows of an embedding, drawn at random and read in binary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Engine, MetaData, Table, func, literal, select, text, type_coerce
from sqlalchemy.exc import NoSuchTableError

from embeddb.encoders.protocol import Vectors
from embeddb.errors import CatalogError, QueryError
from embeddb.metrics import MetricName, Storage
from embeddb.orm.declaration import INFO_KEY, Declaration
from embeddb.orm.reflection import find_spec
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.query.embedding import AnyEmbedding, resolve
from embeddb.spec import EmbeddingSpec, VectorIndex

#: Above so many rows they are drawn from random pages instead of from all pages.
FEW: Final = 200_000
#: Rows read from pages for one that is kept, so that a page gives few of them.
THINNED: Final = 4

_TYPE: Final = text(
    "SELECT t.typname, a.atttypmod FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column"
)
_ROWS: Final = text("SELECT reltuples FROM pg_catalog.pg_class WHERE oid = CAST(:table AS regclass)")


@dataclass(frozen=True, slots=True)
class Subject:
    """An embedding that is looked into.

    ``table``, ``column``: as the database has them. ``spec``: what is declared or registered, if anything. ``metric``,
    ``index``: as declared; cosine, and none, where nothing is known.
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


@contextmanager
def connection_of(bind: Connection | Engine) -> Iterator[Connection]:
    """The connection itself, or one of the engine's."""
    if isinstance(bind, Connection):
        yield bind
    else:
        with bind.connect() as connection:
            yield connection


def subject_of(connection: Connection, embedding: str | AnyEmbedding) -> Subject:
    """What is meant by ``table.column``, ``schema.table.column`` or a declared attribute.

    A name need not be registered: any column of type vector or halfvec will do. Raises QueryError where there is none.
    """
    spec: EmbeddingSpec | None = None
    metric: MetricName = "cosine"
    index: VectorIndex | None = None
    if isinstance(embedding, str):
        *schema, table_name, column_name = embedding.split(".") if embedding.count(".") in (1, 2) else ("", "")
        with suppress(CatalogError):  # a column that nobody registered is looked into all the same
            spec = find_spec(connection, embedding)
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
    kind = connection.execute(_TYPE, {"table": quoted, "column": column_name}).one_or_none()
    if kind is None or kind.typname not in ("vector", "halfvec"):
        raise QueryError(f"{name} is no column of vectors in this database")
    column = next(column for column in table.columns if column.name == column_name)
    if kind.atttypmod < 1:
        raise QueryError(f"{name} has no fixed dimensions: declare them, as vector(384)")
    return Subject(name, table, column, kind.atttypmod, kind.typname, metric, index, spec)


def draw(connection: Connection, subject: Subject, size: int, *, columns: Sequence[Any] = (), seed: int = 0) -> Sample:
    """Up to ``size`` rows with a vector at random, and the values of ``columns`` along. Raises QueryError for none.

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
    if not drawn:
        raise QueryError(f"{subject.name} has no row with a vector")
    vectors: NDArray[np.float32] = np.stack([row[0] for row in drawn])
    return Sample(subject, max(rows, len(drawn)), vectors, [tuple(row[1:]) for row in drawn])
