"""Training GloVe: a weighted least squares fit of words' vectors to the logarithm of how often they meet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder, sif
from embeddb.encoders.settings import require
from embeddb.encoders.word_store import SMOOTHING, Words
from embeddb.encoders.words import WordVectors
from embeddb.train.checkpoint import Checkpoint
from embeddb.train.corpus import Progress, spool
from embeddb.train.words import write_fitted

if TYPE_CHECKING:
    from torch import Tensor

#: Pairs that are counted before equal ones are added up: what bounds the memory of counting.
_CHUNK: Final = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class GloveRecipe:
    """How the vectors are fitted (Pennington, Socher, Manning 2014, https://aclanthology.org/D14-1162).

    ``window``: words to either side, counted as 1 / distance. ``ceiling``, ``exponent``: a pair that meets x times
    weighs min(1, (x / ceiling) ** exponent). ``learning_rate``: of AdaGrad over batches of ``batch`` pairs. ``least``:
    occurrences that a word needs to be known. ``common``: of the fitted vectors their mean is taken away, and so many
    of their first principal components, which tell how frequent a word is more than what it means (Mu, Viswanath 2018,
    "All-but-the-Top", https://arxiv.org/abs/1702.01417). ``smoothing``: a of SIF.
    """

    dim: int = 100
    window: int = 15
    epochs: int = 25
    least: int = 5
    ceiling: float = 100.0
    exponent: float = 0.75
    learning_rate: float = 0.25
    batch: int = 8192
    common: int = 1
    seed: int = 0
    smoothing: float = SMOOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Cooccurrences:
    """Pairs of words that meet, each once: their places, ``first`` <= ``second``, and how many ``times``: (pairs,)."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    times: NDArray[np.float64]


def train_glove(
    texts: Iterable[str],
    folder: str | Path,
    recipe: GloveRecipe = GloveRecipe(),
    *,
    progress: Progress | None = None,
) -> WordVectors:
    """Train GloVe on texts and write the model to ``folder``; texts are read once, in order, and spooled to disk.

    The state is kept in the folder after each epoch; the same call on the same texts goes on from there. The pairs
    are held in memory, 24 bytes each. ``progress``: called after each epoch. A word's vector is the sum of its
    two sides', as in the paper. Raises EncoderError where fewer than two words occur often enough.
    """
    torch = require("torch", "words", "GloVe")
    folder = model_folder.prepare(folder)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = spool(texts, Path(scratch) / "corpus.txt")
        vocabulary = corpus.vocabulary(recipe.least)
        pairs = cooccurrences(corpus, vocabulary, recipe.window)
        torch.manual_seed(recipe.seed)
        network = _network(len(vocabulary), recipe.dim)
        optimizer = torch.optim.Adagrad(network.parameters(), recipe.learning_rate)
        checkpoint = Checkpoint(folder / "checkpoint.safetensors", {"glove": asdict(recipe), "data": corpus.digest})
        for epoch in range(checkpoint.restore({"network": network}, optimizer), recipe.epochs):
            batches = _batches(pairs, recipe.batch, np.random.default_rng((recipe.seed, epoch)))
            with torch.sparse.check_sparse_tensor_invariants(False):  # said, or torch warns that it does not check
                for batch in batches:
                    optimizer.zero_grad()
                    _loss(network, *batch, recipe).backward()  # type: ignore[no-untyped-call]  # torch leaves it so
                    optimizer.step()
            checkpoint.save(epoch + 1, {"network": network}, optimizer)
            if progress is not None:
                progress(epoch + 1, recipe.epochs)
        counts = np.array([corpus.counts[word] for word in vocabulary], np.int64)
        vectors = _uncommon((network["own"].weight + network["context"].weight).detach().numpy(), recipe.common)
        trained = write_fitted(Words(vocabulary, vectors, counts, smoothing=recipe.smoothing), corpus, folder)
        checkpoint.remove()
        return trained


def cooccurrences(corpus: Iterable[list[str]], vocabulary: list[str], window: int) -> Cooccurrences:
    """How often words meet within ``window`` words of a text, each time as 1 / distance; others are left out before."""
    places = {word: place for place, word in enumerate(vocabulary)}
    size = len(vocabulary)
    keys: NDArray[np.int64] = np.empty(0, np.int64)
    times: NDArray[np.float64] = np.empty(0)
    for pending_keys, pending_times in _chunks(corpus, places, window, size):
        keys, where = np.unique(np.concatenate([keys, pending_keys]), return_inverse=True)
        times = np.bincount(where, np.concatenate([times, pending_times])).astype(float)
    return Cooccurrences(keys // size, keys % size, times)


def _chunks(
    corpus: Iterable[list[str]], places: dict[str, int], window: int, size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    keys: list[NDArray[np.int64]] = []
    times: list[NDArray[np.float64]] = []
    count = 0
    for text in corpus:
        read = np.array([places[word] for word in text if word in places], np.int64)
        for distance in range(1, min(window, len(read) - 1) + 1):
            left, right = read[:-distance], read[distance:]
            keys.append(np.minimum(left, right) * size + np.maximum(left, right))
            times.append(np.full(len(left), 1 / distance))
            count += len(left)
        if count > _CHUNK:
            yield np.concatenate(keys), np.concatenate(times)
            keys, times, count = [], [], 0
    if keys:
        yield np.concatenate(keys), np.concatenate(times)


def _uncommon(vectors: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    vectors = vectors - vectors.mean(0)
    for _ in range(components):
        vectors = sif.without(vectors, sif.principal_component(vectors))
    return vectors


def _network(words: int, dim: int) -> Any:
    from torch import nn

    layers = nn.ModuleDict()
    for name, width in (("own", dim), ("context", dim), ("own_bias", 1), ("context_bias", 1)):
        layer = nn.Embedding(words, width, sparse=True)
        nn.init.uniform_(layer.weight, -0.5 / dim, 0.5 / dim)
        layers[name] = layer
    return layers


def _batches(pairs: Cooccurrences, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All pairs in random order, each with either word as the one that is at home and the other its context."""
    import torch

    order = rng.permutation(len(pairs.times))
    turned = rng.random(len(order)) < 0.5
    first = np.where(turned, pairs.second, pairs.first)
    second = np.where(turned, pairs.first, pairs.second)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        yield torch.from_numpy(first[some]), torch.from_numpy(second[some]), torch.from_numpy(pairs.times[some])


def _loss(network: Any, first: Tensor, second: Tensor, times: Tensor, recipe: GloveRecipe) -> Tensor:
    told: Tensor = (network["own"](first) * network["context"](second)).sum(1)
    told = told + network["own_bias"](first)[:, 0] + network["context_bias"](second)[:, 0]
    weight = (times / recipe.ceiling).clamp_max(1) ** recipe.exponent
    return (weight * (told - times.log()) ** 2).sum().float()
