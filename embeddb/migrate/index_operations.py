"""Operations on vector indexes: created, replaced and dropped concurrently where the table is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from alembic.autogenerate.render import renderers
from alembic.operations.base import Operations
from alembic.operations.ops import MigrateOperation
from psycopg import sql
from sqlalchemy import text

from embeddb.catalog.build_watch import watching
from embeddb.catalog.indexes import Build
from embeddb.migrate.render import call
from embeddb.migrate.script import connection_of, log, place, qualified, run
from embeddb.naming import fit

#: Seconds between two lines about an index that is being built.
_INTERVAL: Final = 5.0


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

    def create_sql(self, *, again: bool = False) -> str:
        """CREATE INDEX. ``again``: it may be there."""
        what = sql.SQL(self.expression) if self.expression else sql.Identifier(self.column)
        parts = [
            sql.SQL("CREATE INDEX CONCURRENTLY" if self.concurrently else "CREATE INDEX"),
            *([sql.SQL("IF NOT EXISTS")] if again else []),
            sql.Identifier(self.name),
            sql.SQL("ON {} USING {} ({} {})").format(
                place(self.table, self.schema), sql.Identifier(self.method), what, sql.Identifier(self.opclass)
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
        how = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}" if self.concurrently else "DROP INDEX {}")
        return how.format(place(self.name, self.schema)).as_string(None)


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


@Operations.register_operation("replace_vector_index")
class ReplaceVectorIndexOp(_OfIndex):
    """Build an index anew, with another definition, while the one that is there serves."""

    def __init__(self, index: VectorIndex, existing: VectorIndex | None = None) -> None:
        super().__init__(index)
        self.existing = existing

    @classmethod
    def replace_vector_index(
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
        existing: Mapping[str, Any] | None = None,
    ) -> Any:
        """Build an index concurrently under another name, drop the one of this name, and rename.

        The arguments are those of ``create_vector_index``. ``existing``: those that were different, which only the way
        back needs. Searches have one of the two at any time; until the end there is room for both.
        """
        index = VectorIndex(name, table, column, method, opclass, expression, options or {}, where, schema, True)
        return operations.invoke(cls(index, replace(index, **existing) if existing else None))

    def reverse(self) -> ReplaceVectorIndexOp:
        """The opposite."""
        if self.existing is None:
            raise ValueError(f"the index {self.index.name} cannot be put back: what it was is not known")
        return ReplaceVectorIndexOp(self.existing, self.index)

    @property
    def differing(self) -> dict[str, Any]:
        """What the index that is there was made with, where that is another thing."""
        if self.existing is None:
            return {}
        names = ("method", "opclass", "expression", "options", "where")
        return {name: there for name in names if (there := getattr(self.existing, name)) != getattr(self.index, name)}

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("replace_vector_index", self.index.create_sql(), self.differing)


@Operations.register_operation("rename_vector_index")
class RenameVectorIndexOp(MigrateOperation):
    """Give an index another name: one that was built for a table or column that is called otherwise now."""

    def __init__(self, name: str, new_name: str, schema: str | None = None) -> None:
        self.name, self.new_name, self.schema = name, new_name, schema

    @classmethod
    def rename_vector_index(cls, operations: Operations, name: str, new_name: str, *, schema: str | None = None) -> Any:
        """Give an index another name, which takes no time: nothing is built."""
        return operations.invoke(cls(name, new_name, schema))

    def reverse(self) -> RenameVectorIndexOp:
        """The opposite."""
        return RenameVectorIndexOp(self.new_name, self.name, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return ("rename_vector_index", self.schema, self.name, self.new_name)


# What is done concurrently is committed at once, while Alembic notes a revision at its end. So a revision that was cut
# off may find its index there, or gone, when it runs again, and bears that.
@Operations.implementation_for(CreateVectorIndexOp)
def _create(operations: Operations, operation: CreateVectorIndexOp) -> None:
    with _outside_transaction(operations, operation.index) as index:
        _build(operations, index)


@Operations.implementation_for(ReplaceVectorIndexOp)
def _replace(operations: Operations, operation: ReplaceVectorIndexOp) -> None:
    with _outside_transaction(operations, operation.index) as index:
        if not index.concurrently:  # nobody sees the one without the other
            run(operations, index.drop_sql())
            _build(operations, index)
            return
        aside = replace(index, name=fit(f"{index.name}__new"))
        _build(operations, aside)
        run(operations, index.drop_sql())
        run(operations, _rename_sql(aside.name, index.name, index.schema))


@Operations.implementation_for(DropVectorIndexOp)
def _drop(operations: Operations, operation: DropVectorIndexOp) -> None:
    with _outside_transaction(operations, operation.index) as index:
        run(operations, index.drop_sql())


@Operations.implementation_for(RenameVectorIndexOp)
def _rename(operations: Operations, operation: RenameVectorIndexOp) -> None:
    run(operations, _rename_sql(operation.name, operation.new_name, operation.schema))


def _rename_sql(name: str, new_name: str, schema: str | None) -> str:
    rename = sql.SQL("ALTER INDEX {} RENAME TO {}")
    return rename.format(place(name, schema), sql.Identifier(new_name)).as_string(None)


def _build(operations: Operations, index: VectorIndex) -> None:
    if operations.get_context().as_sql:
        run(operations, index.create_sql())
        return
    if index.concurrently:
        _drop_leftover(operations, index)
    with watching(connection_of(operations), partial(_tell, index.name), interval=_INTERVAL):
        run(operations, index.create_sql(again=index.concurrently))


def _drop_leftover(operations: Operations, index: VectorIndex) -> None:
    """An index of that name that is invalid: a concurrent build that was cut off has left it."""
    left = text("SELECT NOT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(:name)")
    if connection_of(operations).scalar(left, {"name": qualified(index.name, index.schema)}):
        run(operations, index.drop_sql())


def _tell(name: str, build: Build) -> None:
    log.info("%s: %s", name, build)


@contextmanager
def _outside_transaction(operations: Operations, index: VectorIndex) -> Iterator[VectorIndex]:
    """Leave the transaction for what is done concurrently. A transaction of the caller's own, as tests hold one around
    all migrations, is not ours to commit: there the index is built inside."""
    context = operations.get_context()
    if not index.concurrently or context._in_external_transaction:
        yield replace(index, concurrently=False)
        return
    with context.autocommit_block():
        yield index


@renderers.dispatch_for(CreateVectorIndexOp)
def _render_create(context: Any, operation: CreateVectorIndexOp) -> str:
    return _call("op.create_vector_index", operation.index, concurrently=operation.index.concurrently or None)


@renderers.dispatch_for(ReplaceVectorIndexOp)
def _render_replace(context: Any, operation: ReplaceVectorIndexOp) -> str:
    return _call("op.replace_vector_index", operation.index, existing=operation.differing or None)


def _call(function: str, index: VectorIndex, **more: Any) -> str:
    return call(
        function,
        *(index.name, index.table, index.column),
        method=index.method,
        opclass=index.opclass,
        expression=index.expression,
        options=dict(index.options) or None,
        where=index.where,
        schema=index.schema,
        **more,
    )


@renderers.dispatch_for(DropVectorIndexOp)
def _render_drop(context: Any, operation: DropVectorIndexOp) -> str:
    index = operation.index
    concurrently = index.concurrently or None
    return call("op.drop_vector_index", index.name, schema=index.schema, concurrently=concurrently)


@renderers.dispatch_for(RenameVectorIndexOp)
def _render_rename(context: Any, operation: RenameVectorIndexOp) -> str:
    return call("op.rename_vector_index", operation.name, operation.new_name, schema=operation.schema)
