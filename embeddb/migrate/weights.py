"""Models that changed under their name: an encoder's fingerprint beside the one that its rows were embedded with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from embeddb.encoders import Encoder, from_config
from embeddb.encoders.identity import same_encoder
from embeddb.errors import EmbeddbError

_NOTED: Final = text(
    "SELECT v.name, v.encoder, v.fingerprint FROM embeddb.embeddings v WHERE v.fingerprint IS NOT NULL ORDER BY v.name"
)


class Weights(NamedTuple):
    """An embedding whose encoder is not the one that it was, or, with ``error``, could not be asked."""

    name: str
    noted: str
    found: str | None
    error: str | None = None

    @property
    def what(self) -> str:
        """The difference, in words."""
        if self.error is not None:
            return f"{self.name}: whether its encoder has changed cannot be told here: {self.error}"
        return (
            f"{self.name}: its encoder has changed under its name: its fingerprint is {self.found}, and rows were "
            f"embedded with {self.noted}"
        )

    @property
    def remedy(self) -> str:
        """What mends it."""
        if self.error is not None:
            return "look from where its workers run"
        return f"embeddb backfill {self.name} --everything, or the model that it was"

    def __str__(self) -> str:
        return f"{self.what}; to mend it: {self.remedy}"


def changed_weights(
    connection: Connection, encoders: Mapping[str, Encoder], *, others: bool = True
) -> Iterator[Weights]:
    """Embeddings whose encoder has another fingerprint than is noted.

    ``encoders``: those of models, by embedding; a model that declares another encoder than is registered says nothing
    of that one. ``others``: make those that are not among them of the configuration that is registered; else they are
    left out.
    """
    asked: dict[str, str | EmbeddbError] = {}  # one model serves many embeddings, and its files may be large
    for name, config, noted in connection.execute(_NOTED).all():
        key = _key(config)
        given = encoders.get(name)
        if given is not None and not same_encoder(given.config, config):
            given = None
        if given is None and not others:
            continue
        if key not in asked:
            asked[key] = _fingerprint(given, config)
        found = asked[key]
        if isinstance(found, EmbeddbError):
            yield Weights(name, noted, None, str(found))
        elif found != noted:
            yield Weights(name, noted, found)


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _fingerprint(encoder: Encoder | None, config: Mapping[str, Any]) -> str | EmbeddbError:
    try:
        return (encoder or from_config(config)).fingerprint
    except EmbeddbError as error:
        return error
