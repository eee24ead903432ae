"""``recommend``: items for a user, by the vector of their history; and ``because``, which of it an item is near to."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Exists,
    Float,
    ScalarSelect,
    Select,
    bindparam,
    case,
    cast,
    exists,
    func,
    inspect,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.orm import InstanceState, Mapper, QueryableAttribute

from embeddb.errors import QueryError
from embeddb.metrics import METRICS
from embeddb.orm.effort import level_of
from embeddb.orm.embedding_type import distance as measure
from embeddb.orm.history import History, history_of
from embeddb.orm.index_expression import compares_halfvec
from embeddb.orm.settings import settings_of
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.query.candidates import Candidates, Measured
from embeddb.query.embedding import AnyEmbedding, Embedding, resolve

_FLOAT: Final = Float()


def recommend(
    taste: QueryableAttribute[Any],
    user: Any,
    *,
    items: AnyEmbedding,
    exclude_seen: bool = True,
    popularity: ColumnElement[Any] | QueryableAttribute[Any] | None = None,
    distance: bool = False,
    score: bool = False,
    exact: bool = False,
    recall: float | None = None,
) -> Select[Any]:
    """Select items, those nearest to a user's vector first: ``recommend(User.taste, user, items=Item.target)``.

    ``taste``: a ``history_column``, or the embedding of a ``recent_column``. ``user``: an instance, the key that
    events refer to, or ``bindparam("user")``. ``items``: the items' column that users are compared with
    (``vector_column`` or ``embedding_column``), by its metric. ``exclude_seen``: leave out items of the user's events,
    whether they have faded or not.

    A **cold user** (no such user, no events, or none of an item with a vector) gets the items by ``popularity``, the
    greatest first: a column or an expression of items, by default how many events they are in. A **cold item**, one
    without a vector, is never recommended: give it one of its content.

    ``distance``, ``score``, ``exact``, ``recall``: as in ``nearest``; the two are NULL for a cold user. The result is
    an ordinary Select of the items: add ``where``, ``join``, ``limit``; with a LIMIT the index serves it.
    """
    history = history_of(taste)
    found = resolve(items, "recommend")
    settings = found.settings
    dim = getattr(taste.type, "dim", None)
    if settings.dim != dim:
        raise QueryError(f"recommend: {taste} has {dim} dimensions, and {items} has {settings.dim}")
    who = _user(history, user)
    vector = _vector(history, taste, who, found)
    item = _item_key(history, found)
    order = _popularity(history, found, item) if popularity is None else popularity
    instead: ColumnElement[Any] = order.desc().nulls_last()
    measured: ColumnElement[float] = measure(
        found.column, settings, settings.metric, vector, exact=exact, recall=level_of(recall)
    )
    condition: ColumnElement[bool] = found.column.is_not(None)
    if not exact and settings.index is not None:
        measured = Measured(measured)
        condition = Candidates(measured, found.column, found.key, filtered=True, instead=instead)
    elif exact:
        measured = measured + literal_column("0")
    columns: list[ColumnElement[Any]] = []
    if distance:
        columns.append(measured.label("distance"))
    if score:
        columns.append(settings.metric.score(measured).label("score"))
    statement = select(found.entity, *columns).where(condition)
    if exclude_seen:
        statement = statement.where(~_seen(history, who, item).correlate(found.entity))
    cold = case((vector.is_(None), order))
    return statement.order_by(measured, cold.desc().nulls_last(), *found.key)


def because(
    taste: QueryableAttribute[Any], user: Any, item: Any, *, items: QueryableAttribute[Any] | None = None
) -> Select[Any]:
    """Select (event, distance): the user's events by how near their item is to ``item``, the nearest first.

    "Because you bought …": ``because(User.taste, user, item).limit(3)``. ``item``: an instance, the key that events
    refer to, or ``bindparam("item")``. Distances are between the vectors that the history pools, or those of ``items``,
    by the metric that their column declares, or else cosine. There are no rows for an item without a vector, nor for
    a user without events. Every event of the user is read, and no others: give the events an index on the user.
    """
    history = history_of(taste)
    column = history.pooled if items is None else items.property.columns[0]
    if column is None or column.table is not history.items:
        raise QueryError(f"because: say by which column of {history.items} its rows are alike, items=…")
    users, events, kinds = history.mappers
    who = _bound(history.user_key, _key(user, users, history.user_key, "because"), "user")
    asked = _bound(history.item_key, _key(item, kinds, history.item_key, "because"), "item")
    other = history.items.alias("recommended")
    vector = select(other.c[column.key]).where(other.c[history.item_key.key] == asked).correlate(None).scalar_subquery()
    settings = settings_of(column.type)
    metric = METRICS["cosine"] if settings is None else settings.metric
    far: ColumnElement[float] = column.op(metric.operator, return_type=_FLOAT)(vector)
    return (
        select(events.class_, far.label("distance"))
        .join(kinds.class_, history.item_key == history.item_ref)
        .where(history.user_ref == who, far.is_not(None))
        .order_by(far, history.at.desc(), *history.events.primary_key)
    )


def _user(history: History, user: Any) -> ColumnElement[Any]:
    return _bound(history.user_key, _key(user, history.mappers[0], history.user_key, "recommend"), "user")


def _key(row: Any, mapper: Mapper[Any], column: Column[Any], what: str) -> Any:
    """What events refer to an instance by; anything else is that key already."""
    state = inspect(row, raiseerr=False)
    if not isinstance(state, InstanceState):
        return row
    name = state.mapper.class_.__name__
    if not state.mapper.isa(mapper):
        raise QueryError(f"{what}: {name} is no {mapper.class_.__name__}")
    # Not by the attribute, which would be read anew after a commit.
    if state.identity is not None and column in state.mapper.primary_key:
        return state.identity[state.mapper.primary_key.index(column)]
    value = state.dict.get(state.mapper.get_property_by_column(column).key)
    if value is None:
        raise QueryError(f"{what}: this {name} has no {column.name} yet: flush it first, or give its key")
    return value


def _bound(column: Column[Any], value: Any, name: str) -> ColumnElement[Any]:
    if isinstance(value, BindParameter):
        return type_coerce(value, column.type)
    if isinstance(value, ColumnElement):
        return value
    return bindparam(name, value, type_=column.type, unique=True)


def _vector(
    history: History, taste: QueryableAttribute[Any], who: ColumnElement[Any], found: Embedding
) -> ScalarSelect[Any]:
    """The user's vector, read once."""
    stored: ColumnElement[Any] = history.users.c[taste.property.columns[0].key]
    if compares_halfvec(found.settings) != isinstance(stored.type, HALFVEC):
        stored = cast(stored, HALFVEC() if compares_halfvec(found.settings) else VECTOR())
    user = select(stored.label("vector")).where(history.user_key == who).cte("embeddb_user")
    return select(user.c.vector).scalar_subquery()


def _item_key(history: History, found: Embedding) -> ColumnElement[Any]:
    """What events refer to an item by, of the entity that is selected."""
    if not isinstance(found.attribute, QueryableAttribute):
        if found.table is not history.items:
            raise QueryError(f"recommend: the events of {history.name} are of {history.items}, not of {found.table}")
        key: ColumnElement[Any] = found.entity.c[history.item_key.key]
        return key
    mapper: Mapper[Any] = inspect(found.entity).mapper
    if not mapper.isa(history.mappers[2]):
        raise QueryError(
            f"recommend: the events of {history.name} are of {history.mappers[2].class_.__name__}, "
            f"not of {mapper.class_.__name__}"
        )
    attribute: QueryableAttribute[Any] = getattr(found.entity, mapper.get_property_by_column(history.item_key).key)
    return attribute.__clause_element__()


def _seen(history: History, who: ColumnElement[Any], item: ColumnElement[Any]) -> Exists:
    events = history.events.alias("seen")
    return exists().where(events.c[history.user_ref.key] == who, events.c[history.item_ref.key] == item)


def _popularity(history: History, found: Embedding, item: ColumnElement[Any]) -> ColumnElement[Any]:
    events = history.events.alias("popular")
    counted = select(func.count()).select_from(events).where(events.c[history.item_ref.key] == item)
    return counted.correlate(found.entity).scalar_subquery()
