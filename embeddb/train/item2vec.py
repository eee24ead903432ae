"""Training item2vec: skip-gram over histories, as word2vec over sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.history import catalogue
from embeddb.encoders.history.item_vectors import ItemVectors
from embeddb.encoders.settings import require
from embeddb.train.items import Events, gather

#: Called after each epoch with the epochs done, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item2VecRecipe:
    """How items' vectors are trained (Barkan and Koenigstein 2016, https://arxiv.org/abs/1603.04259).

    Histories want other settings than sentences: a wide ``window``, many ``epochs``, and negatives drawn
    evenly, with ``exponent`` 0 (Caselles-Dupré et al. 2018, https://arxiv.org/abs/1804.04212). ``least``: events
    that an item needs to be known. ``workers`` above 1 is faster and no longer reproducible.
    """

    dim: int = 64
    window: int = 30
    epochs: int = 30
    negative: int = 10
    sample: float = 1e-3
    exponent: float = 0.0
    least: int = 1
    workers: int = 1
    seed: int = 0


def train_item2vec(
    events: Events,
    folder: str | Path,
    recipe: Item2VecRecipe = Item2VecRecipe(),
    *,
    half_life: float | None = None,
    progress: Progress | None = None,
) -> ItemVectors:
    """Train on (user, item, time, weight), the last two of which may be absent, and write the model to ``folder``.

    ``half_life``: seconds, of the encoder that is returned; the vectors do not depend on it. Both sides of
    skip-gram are kept, each vector at length 1: those of an item as context are the ``targets``.
    """
    callbacks = require("gensim.models.callbacks", "history", "item2vec")
    word2vec = require("gensim.models.word2vec", "history", "item2vec")
    model_folder.prepare(folder)
    items, known = gather(events, recipe.least)
    places = {item: place for place, item in enumerate(items)}

    class Tick(callbacks.CallbackAny2Vec):  # type: ignore[misc, name-defined]  # gensim is untyped
        done = 0

        def on_epoch_end(self, _model: object) -> None:
            self.done += 1
            if progress is not None:
                progress(self.done, recipe.epochs)

    model = word2vec.Word2Vec(
        sentences=[[str(places[event.item]) for event in history] for history in known],
        sg=1,
        vector_size=recipe.dim,
        window=recipe.window,
        epochs=recipe.epochs,
        negative=recipe.negative,
        sample=recipe.sample,
        ns_exponent=recipe.exponent,
        min_count=1,
        workers=recipe.workers,
        seed=recipe.seed,
        callbacks=[Tick()],
    )
    order = [model.wv.key_to_index[str(place)] for place in range(len(items))]
    pooled, targets = _unit(model.wv.vectors[order]), _unit(model.syn1neg[order])
    catalogue.write(Path(folder), {"kind": ItemVectors.type}, items, targets, {"pooled": pooled})
    return ItemVectors(str(folder), half_life=half_life)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """At length 1; a context that was never seen is still all zeros, and becomes a direction of its own."""
    empty = ~vectors.any(1, keepdims=True)
    vectors = np.where(empty, np.random.default_rng(0).standard_normal(vectors.shape), vectors)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
