"""Declared indexes of embeddings: which are missing, building them while the table is in use, and mending what is left.

Postgres builds concurrently in several transactions of its own. A build that fails or is cancelled leaves an index that
every write keeps up and no search uses (https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from psycopg import sql
from psycopg.errors import Diagnostic
from sqlalchemy import Column, Connection, Engine, Index, MetaData, Table, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateIndex

from embeddb.catalog.build_watch import watching
from embeddb.catalog.errors import catalog_errors
from embeddb.catalog.indexes import Build, IndexState, read_index_states
from embeddb.catalog.install import require
from embeddb.encoders.hashing import Hashing
from embeddb.errors import CatalogError
from embeddb.naming import index_name
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.index_expression import declared_index, opclass
from embeddb.orm.reflection import find_spec
from embeddb.orm.settings import Settings
from embeddb.spec import EmbeddingSpec

#: Seconds between two looks at how far a build is.
_INTERVAL: Final = 0.5
#: How long what a failed build has left may wait to be dropped, for transactions that have used the table.
_PATIENCE: Final = "10s"

#: Not the other column of an encoder's change: `embeddb reembed` builds its index when it is filled.
_NAMES: Final = text(
    "SELECT v.name FROM embeddb.embeddings v"
    " WHERE NOT EXISTS (SELECT FROM embeddb.reembedding r WHERE r.shadow = v.id) ORDER BY v.name"
)
_PARTITIONED: Final = text(
    "SELECT c.relkind = 'p' FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = :schema AND c.relname = :table"
)
_SET: Final = text("SELECT pg_catalog.set_config(:name, :value, false)")

Observer = Callable[[Build], None]


class Declared(NamedTuple):
    """The index that an embedding declares, by its name, and what there is of it: valid ones first."""

    embedding: str
    spec: EmbeddingSpec
    name: str
    found: list[IndexState]

    @property
    def valid(self) -> bool:
        """Is there an index of the declared method and operator class that searches use?"""
        return any(index.valid for index in self.found)


def declared_indexes(connection: Connection, name: str | None = None) -> list[Declared]:
    """The declared indexes of all embeddings, or of one: ``table.column``. Those without an index are left out."""
    with catalog_errors():
        require(connection)
    names = [name] if name is not None else list(connection.scalars(_NAMES))
    specs = {each: find_spec(connection, each) for each in names}
    return [_declared(connection, each, spec) for each, spec in specs.items() if spec.index is not None]


def index_states(connection: Connection, name: str | None = None) -> list[IndexState]:
    """Every vector index of the database, or those of one embedding's column."""
    if name is None:
        return read_index_states(connection)
    spec = find_spec(connection, name)
    return read_index_states(connection, schema=spec.schema, table=spec.table, column=spec.column)


def index_of(spec: EmbeddingSpec, name: str, *, concurrently: bool = True) -> Index:
    """The index that ``spec`` declares, under that name."""
    settings = _settings(spec)
    column: Column[Any] = Column(spec.column, embedding_type(settings))
    Table(spec.table, MetaData(), column, schema=spec.schema)
    return declared_index(name, column, settings, postgresql_concurrently=concurrently)


def run_build(connection: Connection, statement: str, observer: Observer | None) -> None:
    """Run the statement that builds an index, compiled, and tell ``observer`` how far it is, twice a second."""

    def tell(build: Build) -> None:
        if observer is not None:
            observer(build)

    with watching(connection, tell, interval=_INTERVAL):
        connection.exec_driver_sql(statement)


def build(
    engine: Engine,
    name: str,
    *,
    memory: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
    notice: Callable[[str], None] | None = None,
) -> str | None:
    """Build the index that the embedding declares, where it is missing or invalid; its name, None where it is there.

    Concurrently, so that writers go on; that of a partitioned table is built in one transaction, for Postgres has no
    other way. ``memory`` and ``workers``: ``maintenance_work_mem``, as "2GB", and ``max_parallel_maintenance_workers``.
    ``observer``: is told how far it is. ``notice``: is told what the server remarks. A build that fails or is
    interrupted leaves nothing behind, or says what. Raises CatalogError where no index is declared.
    """
    with engine.connect() as connection:
        found = declared_indexes(connection, name)
    if not found:
        raise CatalogError(f"{name} declares no index: give its embedding_column index=HNSW(), and migrate")
    [wanted] = found
    if wanted.valid:
        return None
    with _builder(engine, notice, memory, workers) as connection:
        for index in wanted.found:
            drop_index(connection, index.schema, index.name)
        partitioned = connection.scalar(_PARTITIONED, {"schema": wanted.spec.schema, "table": wanted.spec.table})
        create = CreateIndex(index_of(wanted.spec, wanted.name, concurrently=not partitioned))
        statement = str(create.compile(dialect=connection.dialect))
        with _nothing_left(engine, wanted.spec.schema, wanted.spec.table, wanted.name, notice):
            run_build(connection, statement, observer)
    return wanted.name


def repair(
    engine: Engine,
    name: str | None = None,
    *,
    memory: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
    notice: Callable[[str], None] | None = None,
    say: Callable[[str], None] = lambda said: None,
) -> int:
    """Mend every vector index, or those of one embedding; how many could not be, for someone works on their tables.

    What an interrupted REINDEX or DROP CONCURRENTLY has left is dropped, an invalid index is built again as it was, and
    a declared one that is missing is built. ``say``: is told what was done. The rest as for ``build``.
    """
    with engine.connect() as connection:
        invalid = [index for index in index_states(connection, name) if not index.valid and not index.partitioned]
    left = 0
    with _builder(engine, notice, memory, workers) as connection:
        for index in invalid:
            if index.held:
                say(f"{index.place}: somebody builds an index of {index.table}, or vacuums it; left alone")
                left += 1
            elif index.leftover:
                drop_index(connection, index.schema, index.name)
                say(f"{index.place}: a leftover; dropped")
            else:
                reindex = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(index.schema, index.name))
                with _nothing_left(engine, index.schema, index.table, index.name, notice):
                    # A percent sign would be a parameter to the driver.
                    run_build(connection, reindex.as_string(None).replace("%", "%%"), observer)
                say(f"{index.place}: was invalid; built again")
        with engine.connect() as reader:
            missing = [each for each in declared_indexes(reader, name) if not each.found]
    for each in missing:
        build(engine, each.embedding, memory=memory, workers=workers, observer=observer, notice=notice)
        say(f"{each.name}: was missing; built")
    return left


def _settings(spec: EmbeddingSpec) -> Settings:
    # What is indexed has nothing to do with the encoder, which may be the application's own and not at hand.
    return Settings.of(spec, Hashing(spec.dim))


def _declared(connection: Connection, embedding: str, spec: EmbeddingSpec) -> Declared:
    index = spec.index
    assert index is not None
    kind = (index.method, opclass(_settings(spec), index))
    states = read_index_states(connection, schema=spec.schema, table=spec.table, column=spec.column)
    found = [state for state in states if (state.method, state.opclass) == kind and not state.leftover]
    name = index_name(spec.table, spec.column, index.method)
    return Declared(embedding, spec, name, sorted(found, key=lambda state: not state.valid))


@contextmanager
def _builder(
    engine: Engine,
    notice: Callable[[str], None] | None,
    memory: str | None = None,
    workers: int | None = None,
) -> Iterator[Connection]:
    """A connection in autocommit for builds, which is closed at the end, with its settings."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driven: Any = connection.connection.driver_connection
        for setting, value in (("maintenance_work_mem", memory), ("max_parallel_maintenance_workers", workers)):
            if value is not None:
                connection.execute(_SET, {"name": setting, "value": str(value)})
        if notice is not None:
            driven.add_notice_handler(lambda said: notice(_remark(said)))
        try:
            yield connection
        finally:
            connection.invalidate()


@contextmanager
def _nothing_left(
    engine: Engine, schema: str | None, table: str, name: str, notice: Callable[[str], None] | None
) -> Iterator[None]:
    """What a build that failed has left is dropped, over another connection: the first may be gone."""
    with engine.connect() as connection:
        before = {index.name for index in read_index_states(connection, schema=schema, table=table)}
    try:
        yield
    except BaseException:
        with _builder(engine, notice) as connection:
            connection.execute(_SET, {"name": "lock_timeout", "value": _PATIENCE})
            for index in read_index_states(connection, schema=schema, table=table):
                left = index.leftover or index.name == name
                if not left or index.valid or index.name in before:
                    continue
                try:
                    drop_index(connection, schema, index.name)
                except OperationalError as error:
                    if notice is not None:
                        notice(f"{index.place} is left, invalid ({error.orig}): embeddb index repair mends it")
        raise


def _remark(said: Diagnostic) -> str:
    return ". ".join(part for part in (said.message_primary, said.message_hint) if part)


def drop_index(connection: Connection, schema: str | None, name: str) -> None:
    """Drop an index while its table is read and written."""
    place = sql.Identifier(*([schema] if schema else []), name)
    statement = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(place).as_string(None)
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
