"""``op.create_vector_index`` and ``op.drop_vector_index``, concurrently where the table is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation
from psycopg import sql
from sqlalchemy import text

from embeddb.migrate.render import call
from embeddb.migrate.script import connection_of, identifier, run


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """A vector index as a migration has it.

    ``expression``: what is indexed where that is not the column itself, as SQL: ``(embedding::halfvec(384))``.
    ``options``: the index's WITH options. ``where``: a partial index's condition, as SQL.
    """

    name: str
    table: str
    column: str
    method: str
    opclass: str
    expression: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str | None = None
    schema: str | None = None
    concurrently: bool = False

    def create_sql(self) -> str:
        """CREATE INDEX."""
        table = sql.Identifier(*([self.schema] if self.schema else []), self.table)
        what = sql.SQL(self.expression) if self.expression else sql.Identifier(self.column)
        parts = [
            sql.SQL("CREATE INDEX CONCURRENTLY" if self.concurrently else "CREATE INDEX"),
            sql.Identifier(self.name),
            sql.SQL("ON {} USING {} ({} {})").format(
                table, sql.Identifier(self.method), what, sql.Identifier(self.opclass)
            ),
        ]
        if self.options:
            given = [
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.SQL(str(value)))
                for name, value in self.options.items()
            ]
            parts.append(sql.SQL("WITH ({})").format(sql.SQL(", ").join(given)))
        if self.where:
            parts.append(sql.SQL("WHERE {}").format(sql.SQL(self.where)))
        return sql.SQL(" ").join(parts).as_string(None)

    def drop_sql(self) -> str:
        """DROP INDEX."""
        name = sql.Identifier(*([self.schema] if self.schema else []), self.name)
        how = sql.SQL("DROP INDEX CONCURRENTLY {}" if self.concurrently else "DROP INDEX {}")
        return how.format(name).as_string(None)


class _OfIndex(MigrateOperation):
    def __init__(self, index: VectorIndex) -> None:
        self.index = index


@Operations.register_operation("create_vector_index")
class CreateVectorIndexOp(_OfIndex):
    """Build an HNSW or IVFFlat index."""

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        name: str,
        table: str,
        column: str,
        *,
        method: str = "hnsw",
        opclass: str,
        expression: str | None = None,
        options: Mapping[str, Any] | None = None,
        where: str | None = None,
        schema: str | None = None,
        concurrently: bool = False,
    ) -> Any:
        """Build an HNSW or IVFFlat index over ``column``, or over ``expression``, an SQL expression of it.

        ``opclass``: vector_cosine_ops, halfvec_l2_ops … ``options``: the WITH options, as ``{"m": 16}``.
        ``concurrently``: writers go on meanwhile; the build has no transaction around it, and what an earlier one that
        failed has left is dropped first.
        """
        found = VectorIndex(
            name, table, column, method, opclass, expression, options or {}, where, schema, concurrently
        )
        return operations.invoke(cls(found))

    def reverse(self) -> DropVectorIndexOp:
        """The opposite."""
        return DropVectorIndexOp(self.index)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("create_vector_index", self.index.create_sql())


@Operations.register_operation("drop_vector_index")
class DropVectorIndexOp(_OfIndex):
    """Drop a vector index."""

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        name: str,
        *,
        schema: str | None = None,
        concurrently: bool = False,
    ) -> Any:
        """Drop a vector index."""
        return operations.invoke(cls(VectorIndex(name, "", "", "", "", schema=schema, concurrently=concurrently)))

    def reverse(self) -> CreateVectorIndexOp:
        """The opposite."""
        if not self.index.table:
            raise ValueError(f"the index {self.index.name} cannot be created again: what it was is not known")
        return CreateVectorIndexOp(self.index)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("drop_vector_index", self.index.schema, self.index.name)


@Operations.implementation_for(CreateVectorIndexOp)
def _create(operations: Operations, operation: CreateVectorIndexOp) -> None:
    index = operation.index
    with _outside_transaction(operations, index.concurrently):
        if index.concurrently and not operations.get_context().as_sql:
            _drop_leftover(operations, index)
        run(operations, index.create_sql())


@Operations.implementation_for(DropVectorIndexOp)
def _drop(operations: Operations, operation: DropVectorIndexOp) -> None:
    with _outside_transaction(operations, operation.index.concurrently):
        run(operations, operation.index.drop_sql())


def _drop_leftover(operations: Operations, index: VectorIndex) -> None:
    """An index of that name that is invalid: a concurrent build that was cut off has left it."""
    name = f"{identifier(index.schema)}.{identifier(index.name)}" if index.schema else identifier(index.name)
    left = text("SELECT NOT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(:name)")
    if connection_of(operations).scalar(left, {"name": name}):
        run(operations, index.drop_sql())


@contextmanager
def _outside_transaction(operations: Operations, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with operations.get_context().autocommit_block():
        yield


@renderers.dispatch_for(CreateVectorIndexOp)
def _render_create(context: Any, operation: CreateVectorIndexOp) -> str:
    index = operation.index
    return call(
        "op.create_vector_index",
        *(index.name, index.table, index.column),
        method=index.method,
        opclass=index.opclass,
        expression=index.expression,
        options=dict(index.options) or None,
        where=index.where,
        schema=index.schema,
        concurrently=index.concurrently or None,
    )


@renderers.dispatch_for(DropVectorIndexOp)
def _render_drop(context: Any, operation: DropVectorIndexOp) -> str:
    index = operation.index
    concurrently = index.concurrently or None
    return call("op.drop_vector_index", index.name, schema=index.schema, concurrently=concurrently)
