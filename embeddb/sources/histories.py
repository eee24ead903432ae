"""Histories as a row holds them: JSON, [[item, seconds, weight], …]."""

from __future__ import annotations

import json

from embeddb.encoders.history.events import Event, read_event
from embeddb.errors import SourceError


def read_history(text: str) -> list[Event]:
    """The events of such a text, of which seconds and weight may be absent. Raises SourceError for another."""
    try:
        events = json.loads(text)
    except ValueError as error:
        raise SourceError(f"a history is JSON, [[item, seconds, weight], …], and this is not: {error}") from None
    if not isinstance(events, list):
        raise SourceError(f"a history is a JSON list of events, not {type(events).__name__}")
    return [read_event(tuple(event) if isinstance(event, list) else event, n) for n, event in enumerate(events)]
