"""What the encoders of histories share: a trained model in a folder, items that it knows, and cold users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.history import catalogue
from embeddb.encoders.history.catalogue import Catalogue
from embeddb.encoders.history.events import Item
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings

if TYPE_CHECKING:
    from embeddb.encoders.history.catalogue import Vectors as Targets


class HistoryEncoder(Settings):
    """A base for frozen dataclasses with a ``model``; a subclass gives ``_encode`` for users it knows items of.

    A history with no known item is a cold user: a row of NaN, no embedding. An item that was not there in
    training is cold too: it counts for nothing in a history, and has no vector.
    """

    __slots__ = ()
    model: str
    modality: ClassVar[Modality] = "history"

    @property
    def folder(self) -> Path:
        """Where the model is."""
        return Path(self.model).expanduser()

    @property
    def dim(self) -> int:
        return int(model_folder.read_config(self.folder, self.type)["dim"])

    @property
    def fingerprint(self) -> str:
        settings = {name: value for name, value in self._said().items() if name != "model"}
        said = json.dumps([self.type, 1, settings, model_folder.digest(self.folder)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def items(self) -> Sequence[Item]:
        """The keys of the items that the model knows, the most frequent first."""
        return self._catalogue.items

    @property
    def targets(self) -> Targets:
        """Their vectors, (items, dim), to be stored in a column of the items' table: what users are nearest to."""
        return self._catalogue.targets

    @property
    def _catalogue(self) -> Catalogue:
        return catalogue.load(self.folder, self.type)

    def encode_documents(self, inputs: Sequence[object]) -> Vectors:
        """Vectors of shape (len(inputs), dim) of histories; NaN throughout for one without a known item."""
        loaded = self._catalogue
        known = [loaded.known(history, position) for position, history in enumerate(inputs)]
        vectors = np.full((len(inputs), loaded.targets.shape[1]), np.nan, np.float32)
        warm = [row for row, events in enumerate(known) if events]
        if warm:
            vectors[warm] = self._encode(loaded, [known[row] for row in warm])
        return vectors

    def encode_queries(self, inputs: Sequence[object]) -> Vectors:
        """The same: a history that is asked about is one like any other."""
        return self.encode_documents(inputs)

    def _encode(self, loaded: Catalogue, histories: Sequence[list[tuple[int, float, float]]]) -> Vectors:
        raise NotImplementedError
