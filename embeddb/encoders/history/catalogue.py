"""The items that a history model knows: their keys, and the vectors by which they are pooled and found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.history.events import Event, Item, read_event
from embeddb.encoders.memo import Memo
from embeddb.errors import EncoderError, SourceError

Vectors = NDArray[np.float32]

_loaded: Final[Memo[model_folder.Identity, Catalogue]] = Memo(size=8)


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """``items``: keys, the most frequent first. ``targets``: (items, dim), what a user's vector is compared with.

    ``others``: the model's other tensors, by name.
    """

    items: tuple[Item, ...]
    places: Mapping[Item, int]
    targets: Vectors
    others: Mapping[str, NDArray[Any]]

    def known(self, history: object, position: int = 0) -> list[tuple[int, float, float]]:
        """(place, seconds, weight) of each event whose item is known, in order of time.

        A history is a sequence of ``Event``, of (item, time, weight), or of bare items in their order.
        """
        if isinstance(history, str | bytes) or not isinstance(history, Iterable):
            raise EncoderError(
                f"input {position} is {type(history).__name__}, not a history: give a list of (item, time, weight)",
                position=position,
            )
        try:
            events = sorted((read_event(value, place) for place, value in enumerate(history)), key=_at)
        except SourceError as error:
            raise EncoderError(f"input {position}: {error}", position=position) from error
        return [(self.places[event.item], event.at, event.weight) for event in events if event.item in self.places]


def _at(event: Event) -> float:
    return event.at


def write(
    folder: Path, config: Mapping[str, Any], items: Sequence[Item], targets: Vectors, others: Mapping[str, Any]
) -> None:
    """Write a history model; the items are JSON in a tensor of bytes, so that one file holds all that can be large."""
    keys = np.frombuffer(json.dumps(list(items), ensure_ascii=False).encode(), np.uint8)
    settings = {**config, "dim": int(targets.shape[1]), "items": len(items)}
    model_folder.write(folder, settings, {"items": keys, "targets": targets.astype(np.float32), **others})


def load(folder: Path, kind: str) -> Catalogue:
    """The catalogue of that folder, read once per process."""
    model_folder.read_config(folder, kind)
    return _loaded.get(model_folder.identity(folder), partial(_read, folder))


def _read(folder: Path) -> Catalogue:
    tensors = model_folder.read_tensors(folder)
    items = tuple(json.loads(tensors.pop("items").tobytes()))
    return Catalogue(items, {item: place for place, item in enumerate(items)}, tensors.pop("targets"), tensors)
