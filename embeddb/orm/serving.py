"""The encoder that serves an embedding here and now: mostly the declared one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from embeddb.encoders import Encoder
from embeddb.orm.settings import Settings

_others: ContextVar[Mapping[Settings, Encoder]] = ContextVar("embeddb_serving")


@contextmanager
def serving(others: Mapping[Settings, Encoder]) -> Iterator[None]:
    """Within the block these encoders are used instead of the declared ones."""
    token = _others.set(others)
    try:
        yield
    finally:
        _others.reset(token)


def serving_encoder(settings: Settings) -> Encoder:
    """The encoder for queries of this embedding."""
    return _others.get({}).get(settings, settings.encoder)


def serves_other(settings: Settings) -> bool:
    """Whether the database's encoder is another than the declared one."""
    return settings in _others.get({})
