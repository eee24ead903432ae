"""Following an encoder's change: sessions notice when the database's encoder is no longer theirs.

While an embedding's encoder is being changed its column may be exchanged at any moment. Then every transaction,
before its first search or flush, asks the catalog which encoder serves, and holds that to its end. At other times a
session asks every half second whether a change has begun. An exchange comes three seconds after that at the earliest.

Text is then encoded by the encoder that serves. Rows are left to the queue, whose workers have it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Mapper, Session

from embeddb.encoders import Encoder, embed_query, from_config
from embeddb.encoders.identity import same_encoder
from embeddb.errors import EncoderError
from embeddb.orm.declaration import Declaration, declarations_of
from embeddb.orm.serving import serves_other, serving
from embeddb.orm.settings import Settings

#: Seconds between two looks whether an encoder is being changed. ``embeddb.swap`` relies on it.
INTERVAL: Final = 0.5

_INFO_KEY: Final = "embeddb_serving"
_BOUND_KEY: Final = "embeddb_bound"

# A database without the catalog, or of an older one, or a role that may not look, has nothing to follow.
_THERE: Final = text(
    "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')"
    " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
    " WHERE n.nspname = 'embeddb' AND p.proname = 'serving'"
)
_GENERATION: Final = text("SELECT value, changing FROM embeddb.generation()")
_HOLD: Final = text("SELECT embeddb.hold()")
_SERVING: Final = text("SELECT name, encoder, next FROM embeddb.serving()")


class _Follower:
    """What is known of one database's encoders."""

    def __init__(self) -> None:
        self.looked = float("-inf")
        self.there = False
        self.changing = False
        self.generation: int | None = None
        self.serving: dict[str, Any] = {}
        self.encoders: dict[str, Encoder] = {}

    def look(self, connection: Connection) -> None:
        """Has a change begun, or ended?"""
        self.looked = time.monotonic()
        self.there = self.there or bool(connection.scalar(_THERE))
        if not self.there:
            return
        generation, self.changing = connection.execute(_GENERATION).one()
        if generation != self.generation:
            self.read(connection)
            self.generation = generation

    def read(self, connection: Connection) -> None:
        """Which encoders serve, held to the end of the transaction."""
        connection.execute(_HOLD)
        rows = connection.execute(_SERVING).all()
        self.serving = {name: encoder for name, encoder, _ in rows}
        for coming in (row.next for row in rows if row.next is not None):
            if _as_json(coming) not in self.encoders:
                threading.Thread(target=_warm, args=(self.encoder(coming),), daemon=True).start()

    def encoder(self, config: Mapping[str, Any]) -> Encoder:
        """The one encoder of a configuration, so that its model is loaded once."""
        key = _as_json(config)
        if key not in self.encoders:
            self.encoders[key] = from_config(config)
        return self.encoders[key]

    def others(self, declarations: Iterable[Declaration]) -> dict[Settings, Encoder]:
        """Of these, the encoders that are not the declared ones."""
        found = {}
        for declaration in declarations:
            config = self.serving.get(declaration.name)
            if config is not None and not same_encoder(config, declaration.encoder.config):
                found[declaration.settings] = self.encoder(config)
        return found


_followers: WeakKeyDictionary[Engine, _Follower] = WeakKeyDictionary()


@contextmanager
def followed(
    session: Session, mappers: Iterable[Mapper[Any]], bind_arguments: Mapping[str, Any] | None = None
) -> Iterator[Mapping[Settings, Encoder]]:
    """Within the block these classes' embeddings are read and written by the encoders that serve; yields those that
    are not the declared ones."""
    mappers = [mapper for mapper in mappers if declarations_of(mapper)]
    others: Mapping[Settings, Encoder] = {}
    if mappers:
        bound = {"mapper": mappers[0], **(bind_arguments or {})}
        session.info[_BOUND_KEY] = bound
        others = _others(session, bound, (declaration for mapper in mappers for declaration in declarations_of(mapper)))
    with serving(others):
        yield others


def check_serving(session: Session, declarations: Iterable[Declaration]) -> None:
    """After encoding, which may have taken long, before anything is written: EncoderError where another one serves."""
    declarations = [declaration for declaration in declarations if not serves_other(declaration.settings)]
    exchanged = _others(session, session.info[_BOUND_KEY], declarations)
    for declaration in declarations:
        if declaration.settings in exchanged:
            raise EncoderError(
                f"{declaration.name}: its encoder was exchanged while rows were being embedded, and nothing was "
                "written; try the transaction again"
            )


def _others(
    session: Session, bound: Mapping[str, Any], declarations: Iterable[Declaration]
) -> Mapping[Settings, Encoder]:
    """The encoders that serve these embeddings in the session's database and are not the declared ones."""
    engine = session.get_bind(**bound).engine
    follower = _followers.get(engine) or _followers.setdefault(engine, _Follower())
    if time.monotonic() - follower.looked > INTERVAL:
        follower.look(session.connection(bind_arguments=dict(bound)))
    if follower.changing:
        connection = session.connection(bind_arguments=dict(bound))  # begins the transaction
        if session.info.get(_INFO_KEY) is not session.get_transaction():
            follower.read(connection)
            session.info[_INFO_KEY] = session.get_transaction()
    return follower.others(declarations) if follower.serving else {}


def _as_json(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _warm(encoder: Encoder) -> None:
    """Load the model of an encoder that may serve soon, so that the first search by it does not wait."""
    if encoder.modality == "text":
        embed_query(encoder, "warm")
