"""Training ALS: items' factors from who used what, by `implicit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.history import catalogue
from embeddb.encoders.history.als import ALS
from embeddb.encoders.settings import require
from embeddb.train.item2vec import Progress
from embeddb.train.items import Events, gather


@dataclass(frozen=True, slots=True, kw_only=True)
class ALSRecipe:
    """How factors are trained (Hu, Koren, Volinsky 2008). ``alpha``: the confidence of a weight of 1."""

    dim: int = 64
    iterations: int = 15
    regularization: float = 0.05
    alpha: float = 10.0
    least: int = 1
    threads: int = 1
    seed: int = 0


def train_als(
    events: Events,
    folder: str | Path,
    recipe: ALSRecipe = ALSRecipe(),
    *,
    progress: Progress | None = None,
) -> ALS:
    """Train on (user, item, time, weight), of which times do not matter, and write the model to ``folder``."""
    als = require("implicit.cpu.als", "history", "ALS")
    sparse = require("scipy.sparse", "history", "ALS")
    threadpoolctl = require("threadpoolctl", "history", "ALS")
    model_folder.prepare(folder)
    items, known = gather(events, recipe.least)
    places = {item: place for place, item in enumerate(items)}
    rows = np.repeat(np.arange(len(known)), [len(history) for history in known])
    columns = np.array([places[event.item] for history in known for event in history])
    weights = np.array([event.weight for history in known for event in history], np.float32)
    table = sparse.csr_matrix((weights, (rows, columns)), shape=(len(known), len(items)))
    table.sum_duplicates()

    def tick(iteration: int, _seconds: float, _loss: float | None = None) -> None:
        if progress is not None:
            progress(iteration + 1, recipe.iterations)

    # implicit brings its own threads; those of BLAS below them would only be in each other's way.
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = als.AlternatingLeastSquares(
            factors=recipe.dim,
            regularization=recipe.regularization,
            alpha=recipe.alpha,
            iterations=recipe.iterations,
            num_threads=recipe.threads,
            random_state=recipe.seed,
        )
        model.fit(table, show_progress=False, callback=tick)
    config = {"kind": ALS.type, "alpha": recipe.alpha, "regularization": recipe.regularization}
    catalogue.write(Path(folder), config, items, model.item_factors, {})
    return ALS(str(folder))
