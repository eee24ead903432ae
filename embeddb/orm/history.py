"""``history_column``: a user's vector, pooled from the vectors of their items, kept up by the database itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple

from psycopg import sql
from sqlalchemy import Column, Connection, DateTime, Engine, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import MappedColumn, Mapper, QueryableAttribute, RelationshipProperty, configure_mappers

from embeddb.catalog.blocks import blocks
from embeddb.catalog.install import require
from embeddb.encoders.history.pooling import Decay
from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName
from embeddb.naming import CATALOG, embedding_name, fit
from embeddb.orm.vector_column import vector_column
from embeddb.spec import VectorIndex

BLOCKS: Final = blocks("embeddb.orm", "history.sql")
_INFO_KEY: Final = "embeddb_history"
_FUNCTIONS: Final = ("scale", "compute", "rebuild", "add", "renew", "renew_all", "follow")
_TRIGGERS: Final = ("insert", "update", "delete", "truncate", "items")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What was said in ``history_column``: names of attributes."""

    events: str
    item: str
    vector: str
    at: str
    weight: str | None
    decay: Decay | None
    dim: int


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
    mapped = vector_column(dim, metric=metric, index=index, **column)
    mapped.column.info[_INFO_KEY] = settings
    return mapped


class Schemas(NamedTuple):
    """Where pgvector and the tables are: the functions have a search_path of nothing but pg_catalog."""

    vector: str
    users: str
    events: str
    items: str


class History:
    """One history column with the tables that it joins, and the statements that keep it up."""

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
        self.pooled = self._column(item_mapper, self.settings.vector)
        self.events, self.items = _table(self.at), _table(self.pooled)
        dim = getattr(self.pooled.type, "dim", None)
        if dim != self.settings.dim:
            raise DeclarationError(f"{self.name}: dim={self.settings.dim}, but {self.pooled} has {dim} dimensions")

    def statements(self, schemas: Schemas) -> list[sql.Composed]:
        """What makes the functions and triggers, anew if they are there."""
        names = ("scale", "compute", "rebuild", "add", "renew", "renew_all", "follow", "guard", "arm")
        return [self.statement(name, schemas) for name in names]

    def statement(self, block: str, schemas: Schemas) -> sql.Composed:
        """A block of ``history.sql`` with this history's identifiers."""
        vector_schema = schemas.vector
        names = {verb: sql.Identifier(CATALOG, self._derived(verb)) for verb in _FUNCTIONS}
        triggers = {f"{verb}_trigger": sql.Identifier(self._derived(verb)) for verb in _TRIGGERS}
        keys = [sql.Identifier(key.name) for key in self.events.primary_key]
        qualified = [sql.SQL("v.{}").format(key) for key in keys]
        vector_type = sql.Identifier(vector_schema, "vector")
        weight = sql.SQL("1") if self.weight is None else sql.SQL("v.{}").format(sql.Identifier(self.weight.name))
        image = [
            sql.SQL("v.{} AS who").format(sql.Identifier(self.user_ref.name)),
            *(sql.SQL("v.{}").format(sql.Identifier(column.name)) for column in (self.item_ref, self.at)),
            *([] if self.weight is None else [weight]),
            *qualified,
        ]
        comma = sql.SQL(", ")
        return sql.SQL(BLOCKS[block]).format(
            **names,
            **triggers,
            users=sql.Identifier(schemas.users, self.users.name),
            events=sql.Identifier(schemas.events, self.events.name),
            items=sql.Identifier(schemas.items, self.items.name),
            user_key=sql.Identifier(self.user_key.name),
            user_ref=sql.Identifier(self.user_ref.name),
            item_key=sql.Identifier(self.item_key.name),
            item_ref=sql.Identifier(self.item_ref.name),
            vector=sql.Identifier(self.column.name),
            pooled=sql.Identifier(self.pooled.name),
            at=sql.Identifier(self.at.name),
            weight=weight,
            user_type=sql.SQL(_type(self.user_key)),
            at_type=sql.SQL(_type(self.at)),
            vector_type=vector_type,
            vector_schema=sql.Identifier(vector_schema),
            dim=sql.Literal(self.settings.dim),
            event_keys=comma.join(qualified),
            event_keys_named=comma.join(
                sql.SQL("{} AS {}").format(key, sql.Identifier(f"key{place}")) for place, key in enumerate(qualified)
            ),
            previous=comma.join(
                [sql.SQL("previous.at"), *(sql.Identifier("previous", f"key{place}") for place in range(len(keys)))]
            ),
            event_order=comma.join(qualified),
            event_order_back=comma.join(sql.SQL("{} DESC").format(key) for key in qualified),
            same_event=sql.SQL(" AND ").join(sql.SQL("n.{0} = v.{0}").format(key) for key in keys),
            event_image=comma.join(image),
            step=self._step(names["scale"], vector_schema),
            stored=sql.SQL("CASE WHEN {}.vector_norm(state) > 0 THEN state END").format(sql.Identifier(vector_schema)),
        )

    def _step(self, scale: sql.Identifier, vector_schema: str) -> sql.Composed:
        """The state after event ``e``, from ``state`` and ``last_at``: see ``embeddb.encoders.history.pooling``."""
        weighted = sql.SQL("{}(e.item, e.weight::real)").format(scale)
        past = sql.SQL("{}(state, {}::real)").format(scale, self._fading()) if self.settings.decay else sql.SQL("state")
        return sql.SQL("coalesce({} OPERATOR({}.+) {weighted}, {weighted})").format(
            past, sql.Identifier(vector_schema), weighted=weighted
        )

    def _fading(self) -> sql.Composable:
        decay = self.settings.decay
        assert decay is not None
        if decay.unit == "events":
            return sql.Literal(0.5 ** (1 / decay.half_life))
        elapsed = "extract(epoch FROM e.at - last_at)" if isinstance(self.at.type, DateTime) else "(e.at - last_at)"
        age = sql.SQL(elapsed + "::float8 / {}").format(sql.Literal(decay.half_life))
        # Postgres refuses a power that underflows; after a hundred half-lives nothing is left in float32.
        return sql.SQL("CASE WHEN {age} < 100 THEN power(0.5::float8, {age}) ELSE 0 END").format(age=age)

    def _derived(self, verb: str) -> str:
        return fit(f"history_{self.users.name}_{self.column.name}_{verb}")

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
    """The history behind ``User.taste``, of an alias of the class too; DeclarationError for another attribute."""
    configure_mappers()
    mapper: Mapper[Any] | None = getattr(getattr(attribute, "parent", None), "mapper", None)
    prop = None if mapper is None else mapper.column_attrs.get(attribute.key)
    if mapper is None or prop is None or _INFO_KEY not in prop.columns[0].info:
        raise DeclarationError(f"{attribute} is no history: declare it by history_column, such as User.taste")
    [column] = prop.columns
    assert isinstance(column, Column)
    return History(mapper, column)


def register_histories(bind: Engine | Connection, base: Any, *, rebuild: bool = True) -> list[str]:
    """Make, or renew, the triggers of every history that ``base`` declares; returns their names.

    ``rebuild``: also make every user's vector anew, for events that are there already. The catalog must be
    installed; raises CatalogMissing or CatalogOutdated. In the caller's transaction.
    """
    if isinstance(bind, Engine):
        with bind.begin() as connection:
            return register_histories(connection, base, rebuild=rebuild)
    require(bind)
    found = histories_of(base)
    for history in found:
        _run(bind, history.statements(_schemas(bind, history)))
        if rebuild:
            rebuild_history(bind, history)
    return [history.name for history in found]


def unregister_history(connection: Connection, history: History) -> None:
    """Take the triggers and functions away. The column and its vectors stay."""
    _run(connection, [history.statement("disarm", _schemas(connection, history))])


def rebuild_history(connection: Connection, history: History) -> int:
    """Make every user's vector anew from their events; how many."""
    statement = sql.SQL("SELECT {}()").format(sql.Identifier(CATALOG, history._derived("rebuild")))
    return int(connection.exec_driver_sql(statement.as_string(None)).scalar_one())


def verify_history(connection: Connection, history: History) -> Sequence[Any]:
    """Keys of users whose vector is not that of their events, within 1e-6 of its length: none, if all is well."""
    statement = history.statement("wrong", _schemas(connection, history)).as_string(None)
    return connection.exec_driver_sql(statement).scalars().all()


def _run(connection: Connection, statements: Sequence[sql.Composed]) -> None:
    for statement in statements:
        # A percent sign would be a parameter to the driver.
        connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))


def _schemas(connection: Connection, history: History) -> Schemas:
    found = [str(connection.scalar(text("SELECT embeddb.pgvector_schema()")))]
    where = text(
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(:name)"
    )
    for table in (history.users, history.events, history.items):
        name = sql.Identifier(*filter(None, (table.schema, table.name))).as_string(None)
        schema = connection.scalar(where, {"name": name})
        if schema is None:
            raise DeclarationError(f"{history.name}: there is no such table as {name}: create it first")
        found.append(schema)
    return Schemas(*found)


def _table(column: Column[Any]) -> Table:
    assert isinstance(column.table, Table)
    return column.table


def _type(column: Column[Any]) -> str:
    return column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
