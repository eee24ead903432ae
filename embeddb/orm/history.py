"""``history_column``: a user's vector, pooled from the vectors of their items, kept up by the database itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from psycopg import sql
from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, TypeDecorator, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import (
    MappedColumn,
    Mapper,
    QueryableAttribute,
    RelationshipProperty,
    configure_mappers,
    mapped_column,
)

from embeddb.catalog.install import require
from embeddb.encoders.history.pooling import Decay
from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName
from embeddb.naming import embedding_name
from embeddb.orm.declaration import declaration_of
from embeddb.orm.history_spec import HistorySpec, Schemas
from embeddb.orm.vector_column import vector_column
from embeddb.spec import VectorIndex

_INFO_KEY: Final = "embeddb_history"
_MAPPER_KEY: Final = "embeddb_history_mapper"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What was said in ``history_column``: names of attributes."""

    events: str
    item: str
    at: str
    weight: str | None
    vector: str | None = None
    decay: Decay | None = None
    dim: int | None = None
    length: int | None = None


def history_column(
    events: str,
    *,
    item: str,
    vector: str,
    at: str,
    dim: int,
    weight: str | None = None,
    half_life: timedelta | float | None = None,
    unit: Literal["seconds", "events"] = "seconds",
    metric: MetricName = "cosine",
    index: VectorIndex | None = None,
    **column: Any,
) -> MappedColumn[Any]:
    """A mapped column that holds the pooled vectors of a row's related items.

    ``events``: the relationship to the events, whose class has a relationship ``item`` to the items, a time ``at``
    (a datetime or a number of seconds) and perhaps a ``weight``; ``vector`` is the items' column that is pooled,
    of ``dim`` dimensions. ``half_life``: a timedelta, or a number of ``unit``, after which an event counts half;
    None lets none fade. NULL where no event's item has a vector. ``metric`` and ``index`` serve searches among
    users. Other arguments go to ``mapped_column``.

    ``register_histories`` makes the triggers. Put an index on the events' foreign key to the user and ``at``.
    """
    period = half_life.total_seconds() if isinstance(half_life, timedelta) else half_life
    decay = None if period is None else Decay(period, unit)
    settings = _Settings(events=events, item=item, vector=vector, at=at, weight=weight, decay=decay, dim=dim)
    return _declared(vector_column(dim, metric=metric, index=index, **column), settings)


def recent_column(
    events: str, *, item: str, at: str, weight: str | None = None, length: int = 50, **column: Any
) -> MappedColumn[Any]:
    """A mapped text column with a row's last ``length`` events, the source of an encoder of histories.

    ``embedding_column("recent", encoder=GRU4Rec("model"))`` beside it is the user's vector: whoever writes an event,
    the row is queued, and a worker embeds it. The text is JSON, [[item, seconds, weight], …] in order of time; NULL
    without events. ``events``, ``item``, ``at``, ``weight``: as for ``history_column``; so is ``register_histories``.
    """
    if length < 1:
        raise DeclarationError(f"recent_column: length is a positive number of events, not {length}")
    column.setdefault("nullable", True)
    column.setdefault("deferred", True)
    settings = _Settings(events=events, item=item, at=at, weight=weight, length=length)
    return _declared(mapped_column(Text, **column), settings)


class History:
    """One history column with the columns that it joins over."""

    def __init__(self, mapper: Mapper[Any], column: Column[Any]) -> None:
        self.settings: _Settings = column.info[_INFO_KEY]
        self.column = column
        self.users = _table(column)
        self.name = embedding_name(self.users.name, column.name, self.users.schema)
        event_mapper, self.user_key, self.user_ref = self._follow(mapper, self.settings.events)
        item_mapper, self.item_key, self.item_ref = self._follow(event_mapper, self.settings.item)
        #: The classes of users, events and items.
        self.mappers = (mapper, event_mapper, item_mapper)
        self.at = self._column(event_mapper, self.settings.at)
        self.weight = None if self.settings.weight is None else self._column(event_mapper, self.settings.weight)
        if _kind(self.at) not in (datetime, date, int, float, Decimal):
            raise DeclarationError(
                f"{self.name}: {self.at} is of type {self.at.type}: a time, a date or seconds order events"
            )
        vector = self.settings.vector
        self.pooled = None if vector is None else self._column(item_mapper, vector)
        self.events, self.items = _table(self.at), _table(self.item_key)
        dim = None if self.pooled is None else getattr(self.pooled.type, "dim", None)
        if dim != self.settings.dim:
            raise DeclarationError(f"{self.name}: dim={self.settings.dim}, but {self.pooled} has {dim} dimensions")

    @property
    def spec(self) -> HistorySpec:
        """The frozen value of this history: all that the database needs to know."""
        said, decay = self.settings, self.settings.decay
        return HistorySpec(
            users=self.users.name,
            users_schema=self.users.schema,
            column=self.column.name,
            user_key=self.user_key.name,
            user_type=_type(self.user_key),
            events=self.events.name,
            events_schema=self.events.schema,
            event_keys=tuple(key.name for key in self.events.primary_key),
            user_ref=self.user_ref.name,
            item_ref=self.item_ref.name,
            at=self.at.name,
            at_type=_type(self.at),
            is_time=_kind(self.at) in (datetime, date),
            weight=None if self.weight is None else self.weight.name,
            items=self.items.name,
            items_schema=self.items.schema,
            item_key=self.item_key.name,
            pooled=None if self.pooled is None else self.pooled.name,
            dim=said.dim,
            length=said.length,
            half_life=None if decay is None else decay.half_life,
            unit="seconds" if decay is None else decay.unit,
        )

    def _follow(self, mapper: Mapper[Any], name: str) -> tuple[Mapper[Any], Column[Any], Column[Any]]:
        """Over a relationship: the other mapper, and the key and the foreign key that join the two."""
        found = mapper.attrs.get(name)
        if not isinstance(found, RelationshipProperty) or found.secondary is not None:
            raise DeclarationError(f"{self.name}: {mapper.class_.__name__}.{name} is no relationship to join over")
        if len(found.local_remote_pairs or ()) != 1:
            raise DeclarationError(f"{self.name}: {mapper.class_.__name__}.{name} joins over several columns, not one")
        [(local, remote)] = found.local_remote_pairs or ()
        key, reference = (remote, local) if found.direction.name == "MANYTOONE" else (local, remote)
        assert isinstance(key, Column)
        assert isinstance(reference, Column)
        return found.mapper, key, reference

    def _column(self, mapper: Mapper[Any], name: str) -> Column[Any]:
        if name not in mapper.column_attrs:
            near = ", ".join(sorted(attribute.key for attribute in mapper.column_attrs))
            raise DeclarationError(f"{self.name}: {mapper.class_.__name__} has no column {name!r}, only {near}")
        column = mapper.column_attrs[name].columns[0]
        assert isinstance(column, Column)
        return column


def histories_in(metadata: MetaData) -> list[History]:
    """Every history column of mapped tables of this MetaData, by name."""
    configure_mappers()
    columns = [column for table in metadata.tables.values() for column in table.columns if _MAPPER_KEY in column.info]
    return sorted((History(column.info[_MAPPER_KEY], column) for column in columns), key=lambda history: history.name)


def _mapped(mapper: Mapper[Any], class_: type) -> None:
    """A mapper is configured: its history columns know it from now on."""
    for column in mapper.local_table.columns:
        if _INFO_KEY in column.info:
            column.info[_MAPPER_KEY] = mapper


def _declared(mapped: MappedColumn[Any], settings: _Settings) -> MappedColumn[Any]:
    mapped.column.info[_INFO_KEY] = settings
    if not event.contains(Mapper, "mapper_configured", _mapped):
        event.listen(Mapper, "mapper_configured", _mapped)
    return mapped


def histories_of(base: Any) -> list[History]:
    """Every history column of a declarative base or registry. Raises DeclarationError for one that cannot work."""
    configure_mappers()
    registry = getattr(base, "registry", base)
    return [
        History(mapper, column)
        for mapper in sorted(registry.mappers, key=lambda mapper: str(mapper.local_table))
        for column in mapper.local_table.columns
        if _INFO_KEY in column.info
    ]


def history_of(attribute: QueryableAttribute[Any]) -> History:
    """The history behind ``User.taste``, pooled or embedded, of an alias too; DeclarationError for what has none."""
    configure_mappers()
    mapper: Mapper[Any] | None = getattr(getattr(attribute, "parent", None), "mapper", None)
    prop = None if mapper is None else mapper.column_attrs.get(attribute.key)
    found = None if prop is None else _history_column(prop.columns[0])
    if mapper is None or found is None:
        raise DeclarationError(
            f"{attribute} is no history: declare it by history_column, or as the embedding of a recent_column"
        )
    return History(mapper, found)


def _history_column(column: Any) -> Column[Any] | None:
    """The column itself, or the one with the last events that it is the embedding of."""
    declaration = declaration_of(column)
    columns = [column] if declaration is None else list(declaration.sources)
    return next((each for each in columns if _INFO_KEY in each.info), None)


def register_histories(bind: Engine | Connection, base: Any, *, rebuild: bool = True) -> list[str]:
    """Make, or renew, the triggers of every history that ``base`` declares; returns their names.

    ``rebuild``: also make every user's vector anew, for events that are there already. The catalog must be
    installed; raises CatalogMissing or CatalogOutdated. In the caller's transaction.
    """
    if isinstance(bind, Engine):
        with bind.begin() as connection:
            return register_histories(connection, base, rebuild=rebuild)
    require(bind)
    specs = [history.spec for history in histories_of(base)]
    for spec in specs:
        register_history(bind, spec, rebuild=rebuild)
    return [spec.name for spec in specs]


def register_history(connection: Connection, spec: HistorySpec, *, rebuild: bool = True) -> None:
    """Make, or renew, what keeps one history up; see ``register_histories``."""
    _run(connection, spec.register_statements(schemas_of(connection, spec)))
    if rebuild:
        rebuild_history(connection, spec)


def unregister_history(connection: Connection, spec: HistorySpec) -> None:
    """Take the triggers and functions away. The column and its vectors stay."""
    _run(connection, spec.unregister_statements(schemas_of(connection, spec)))


def rebuild_history(connection: Connection, spec: HistorySpec) -> int:
    """Make every user's vector anew from their events; how many."""
    return int(connection.exec_driver_sql(spec.rebuild_statement()).scalar_one())


def verify_history(connection: Connection, spec: HistorySpec) -> list[str]:
    """Keys, as text, of users whose vector is not that of their events, within 1e-6 of its length.

    None, if all is well; what is wrong with the history itself, where that is not.
    """
    wrong = text("SELECT coalesce(v.key, v.problem) FROM embeddb.verify_histories(:name) AS v")
    return list(connection.scalars(wrong, {"name": spec.name}))


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        # A percent sign would be a parameter to the driver.
        connection.exec_driver_sql(statement.replace("%", "%%"))


def schemas_of(connection: Connection, spec: HistorySpec) -> Schemas:
    """Where pgvector and a history's tables are; DeclarationError for a table that is not there."""
    found = [str(connection.scalar(text("SELECT embeddb.pgvector_schema()")))]
    where = text(
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(:name)"
    )
    for place in spec.tables:
        name = sql.Identifier(*filter(None, place)).as_string(None)
        schema = connection.scalar(where, {"name": name})
        if schema is None:
            raise DeclarationError(f"{spec.name}: there is no such table as {name}: create it first")
        found.append(schema)
    return Schemas(*found)


def _table(column: Column[Any]) -> Table:
    assert isinstance(column.table, Table)
    return column.table


def _kind(column: Column[Any]) -> type | None:
    """What the database's values of a column are in Python, whatever a type of the application's makes of them."""
    kind: Any = column.type
    while isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    try:
        found: type = kind.python_type
    except NotImplementedError:
        return None
    return found


def _type(column: Column[Any]) -> str:
    return column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
