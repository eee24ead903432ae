"""What a history is, as frozen values that travel as JSON, and the statements that keep it up in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, NamedTuple, Self

from psycopg import sql

from embeddb.catalog.blocks import blocks
from embeddb.naming import CATALOG, embedding_name, fit

_BLOCKS: Final = blocks("embeddb.orm", "history.sql")
_FUNCTIONS: Final = ("scale", "compute", "rebuild", "add", "renew", "renew_all", "follow")
#: On the events' table, and the last on the items'.
_TRIGGERS: Final = ("insert", "update", "delete", "truncate", "items")
#: Blocks of a history that is pooled, and of one that is the last events as they are.
_POOLED_FIRST: Final = ("scale", "compute", "add", "follow")
_POOLED_LAST: Final = ("guard_items", "arm_items")
_RECENT_FIRST: Final = ("recent", "extend")


class Schemas(NamedTuple):
    """Where pgvector and the tables are: the functions have a search_path of nothing but pg_catalog."""

    vector: str
    users: str
    events: str
    items: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySpec:
    """One history: which users' column pools which items' over which events. Names are those of the database.

    Without ``pooled`` the column is text: the last ``length`` events as JSON, for an encoder of histories.
    ``user_type``, ``at_type``: SQL types; ``is_time``: whether ``at`` is a timestamp or a date, not seconds.
    ``half_life``: in ``unit``; None where nothing fades.
    """

    users: str
    column: str
    user_key: str
    user_type: str
    events: str
    event_keys: tuple[str, ...]
    user_ref: str
    item_ref: str
    at: str
    at_type: str
    is_time: bool
    items: str
    item_key: str
    pooled: str | None = None
    dim: int | None = None
    length: int | None = None
    weight: str | None = None
    half_life: float | None = None
    unit: Literal["seconds", "events"] = "seconds"
    users_schema: str | None = None
    events_schema: str | None = None
    items_schema: str | None = None

    @property
    def name(self) -> str:
        """``table.column`` or ``schema.table.column``."""
        return embedding_name(self.users, self.column, self.users_schema)

    @property
    def tables(self) -> tuple[tuple[str | None, str], ...]:
        """(schema, name) of the users', the events' and the items' table."""
        return (
            (self.users_schema, self.users),
            (self.events_schema, self.events),
            (self.items_schema, self.items),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` is the inverse."""
        return asdict(self) | {"event_keys": list(self.event_keys)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec of these values; others than its own are passed over."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**{**known, "event_keys": tuple(values["event_keys"])})

    def register_statements(self, schemas: Schemas | None = None) -> list[str]:
        """What makes the functions and triggers, anew if they are there, and notes the history in the catalog.

        ``schemas``: where things are; by default the tables where the spec says, or in public, as pgvector.
        """
        first, last = (_POOLED_FIRST, _POOLED_LAST) if self.pooled is not None else (_RECENT_FIRST, ())
        names = (*first, "rebuild", "renew", "renew_all", "guard", "arm", *last, "note")
        return [self._statement(name, schemas) for name in names]

    def unregister_statements(self, schemas: Schemas | None = None) -> list[str]:
        """What takes the triggers and functions away. The column and its vectors stay."""
        return forgetting(self.users, self.column, self.users_schema if schemas is None else schemas.users)

    def rebuild_statement(self) -> str:
        """What makes every user's vector anew from their events, and gives how many."""
        return sql.SQL("SELECT {}()").format(sql.Identifier(CATALOG, self._derived("rebuild"))).as_string(None)

    def _statement(self, block: str, schemas: Schemas | None) -> str:
        """A block of ``history.sql`` with this history's identifiers."""
        at = schemas or Schemas("public", *(schema or "public" for schema, _ in self.tables))
        functions = _functions(self.users, self.column)
        triggers = {f"{verb}_trigger": sql.Identifier(self._derived(verb)) for verb in _TRIGGERS}
        single = ("user_key", "user_ref", "item_key", "item_ref", "at")
        keys = [sql.Identifier(key) for key in self.event_keys]
        qualified = [sql.SQL("v.{}").format(key) for key in keys]
        weight = sql.SQL("1") if self.weight is None else sql.SQL("v.{}").format(sql.Identifier(self.weight))
        image = [
            sql.SQL("v.{} AS who").format(sql.Identifier(self.user_ref)),
            *(sql.SQL("v.{}").format(sql.Identifier(column)) for column in (self.item_ref, self.at)),
            *([] if self.weight is None else [weight]),
            *qualified,
        ]
        comma = sql.SQL(", ")
        noted = self.to_dict() | {
            "compute": self._derived("compute"),
            "triggers": [self._derived(verb) for verb in _TRIGGERS[:-1]],
        }
        composed = sql.SQL(_BLOCKS[block]).format(
            **functions,
            **triggers,
            **{name: sql.Identifier(getattr(self, name)) for name in single},
            users=sql.Identifier(at.users, self.users),
            events=sql.Identifier(at.events, self.events),
            items=sql.Identifier(at.items, self.items),
            vector=sql.Identifier(self.column),
            pooled=sql.Identifier(self.pooled or self.item_key),
            length=sql.Literal(self.length),
            seconds=sql.SQL("extract(epoch FROM v.{})" if self.is_time else "v.{}").format(sql.Identifier(self.at)),
            weight=weight,
            user_type=sql.SQL(self.user_type),
            at_type=sql.SQL(self.at_type),
            vector_type=sql.Identifier(at.vector, "vector"),
            vector_schema=sql.Identifier(at.vector),
            dim=sql.Literal(self.dim),
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
            step=self._step(functions["scale"], at.vector),
            stored=sql.SQL("CASE WHEN {}.vector_norm(state) > 0 THEN state END").format(sql.Identifier(at.vector)),
            name=sql.Literal(self.name),
            spec=sql.Literal(json.dumps(noted)),
            users_named=sql.Literal(sql.Identifier(at.users, self.users).as_string(None)),
            events_named=sql.Literal(sql.Identifier(at.events, self.events).as_string(None)),
        )
        return composed.as_string(None)

    def _step(self, scale: sql.Identifier, vector_schema: str) -> sql.Composed:
        """The state after event ``e``, from ``state`` and ``last_at``: see ``embeddb.encoders.history.pooling``."""
        weighted = sql.SQL("{}(e.item, e.weight::real)").format(scale)
        past: sql.Composable = sql.SQL("state")
        if self.half_life is not None:
            past = sql.SQL("{}(state, {}::real)").format(scale, self._fading(self.half_life))
        return sql.SQL("coalesce({} OPERATOR({}.+) {weighted}, {weighted})").format(
            past, sql.Identifier(vector_schema), weighted=weighted
        )

    def _fading(self, half_life: float) -> sql.Composable:
        if self.unit == "events":
            return sql.Literal(0.5 ** (1 / half_life))
        # Of timestamps an interval, of dates a number of days.
        elapsed = sql.SQL("extract(epoch FROM e.at - last_at)" if self.is_time else "(e.at - last_at)")
        if self.at_type == "DATE":
            elapsed = sql.SQL("(e.at - last_at) * 86400")
        age = sql.SQL("{}::float8 / {}").format(elapsed, sql.Literal(half_life))
        # Postgres refuses a power that underflows; after a hundred half-lives nothing is left in float32.
        return sql.SQL("CASE WHEN {age} < 100 THEN power(0.5::float8, {age}) ELSE 0 END").format(age=age)

    def _derived(self, verb: str) -> str:
        return _derived(self.users, self.column, verb)


def forgetting(users: str, column: str, schema: str | None = None) -> list[str]:
    """What takes the triggers and functions of this history away, and the history out of the catalog.

    ``schema``: of the users' table; None where the search path says it.
    """
    table = sql.Identifier(*filter(None, (schema, users))).as_string(None)
    named = {"users_named": sql.Literal(table), "column": sql.Literal(column)}
    functions = _functions(users, column)
    return [sql.SQL(_BLOCKS[block]).format(**functions, **named).as_string(None) for block in ("disarm", "forget")]


def _functions(users: str, column: str) -> dict[str, sql.Identifier]:
    return {verb: sql.Identifier(CATALOG, _derived(users, column, verb)) for verb in _FUNCTIONS}


def _derived(users: str, column: str, verb: str) -> str:
    return fit(f"history_{users}_{column}_{verb}")
