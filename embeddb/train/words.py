"""Training word vectors on texts: word2vec and FastText by gensim; and fitting SIF to vectors that are there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder, sif, word_files, word_store
from embeddb.encoders.settings import require
from embeddb.encoders.word_store import SMOOTHING, Words
from embeddb.encoders.words import WordVectors
from embeddb.errors import EncoderError
from embeddb.train.corpus import Corpus, Progress, spool

#: Texts whose vectors tell the common component.
SAMPLE: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRecipe:
    """How word vectors are trained (Mikolov et al. 2013, https://arxiv.org/abs/1310.4546).

    ``skip_gram``: else continuous bag of words, faster and for large corpora. ``window``: words to either side.
    ``least``: occurrences that a word needs to be known. ``sample``: above this frequency words are skipped at
    times. ``threads`` above 1 is faster and no longer reproducible. ``shortest``, ``longest``: characters of FastText's
    n-grams, ``buckets``: how many of them are told apart. ``smoothing``: a of SIF.
    """

    dim: int = 100
    skip_gram: bool = True
    window: int = 8
    negative: int = 5
    epochs: int = 15
    least: int = 5
    sample: float = 1e-4
    learning_rate: float = 0.05
    threads: int = 1
    seed: int = 0
    shortest: int = 3
    longest: int = 6
    buckets: int = 200_000
    smoothing: float = SMOOTHING


def train_word2vec(
    texts: Iterable[str], folder: str | Path, recipe: WordRecipe = WordRecipe(), *, progress: Progress | None = None
) -> WordVectors:
    """Train word2vec on texts and write the model to ``folder``; texts are read once, in order, and spooled to disk.

    ``progress``: called with the texts read and how many there will be over all epochs. Raises EncoderError where
    fewer than two words occur often enough.
    """
    word2vec = require("gensim.models.word2vec", "words", "word2vec")
    return _train(texts, folder, recipe, progress, lambda **common: word2vec.Word2Vec(**common))


def train_fasttext(
    texts: Iterable[str], folder: str | Path, recipe: WordRecipe = WordRecipe(), *, progress: Progress | None = None
) -> WordVectors:
    """The same by FastText (Bojanowski et al. 2017): a word that was never seen has a vector, from its n-grams."""
    fasttext = require("gensim.models.fasttext", "words", "FastText")

    def make(**common: Any) -> Any:
        return fasttext.FastText(min_n=recipe.shortest, max_n=recipe.longest, bucket=recipe.buckets, **common)

    return _train(texts, folder, recipe, progress, make)


def convert(model: Any, folder: str | Path) -> WordVectors:
    """Write vectors that gensim holds in memory, or a file of them (see ``word_files``), to a folder of our own."""
    words = word_files.read(Path(model)) if isinstance(model, str | Path) else word_files.of_keyed_vectors(model)
    word_store.write(Path(folder), words)
    return WordVectors(str(folder))


def adapt(model: str | Path, texts: Iterable[str], folder: str | Path, *, smoothing: float = SMOOTHING) -> WordVectors:
    """Fit SIF to your texts: vectors stay as they are; p(w) and the common component are learned and written with them.

    ``model``: a folder or file as for ``WordVectors``. Worth it for every model that came without counts.
    """
    words = WordVectors(str(model)).loaded
    model_folder.prepare(folder)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = spool(texts, Path(scratch) / "corpus.txt")
        counts: NDArray[np.int64] = np.zeros(len(words.words), np.int64)
        for token, count in corpus.counts.items():
            if token in words.places:
                counts[words.places[token]] = count
        if not counts.any():
            raise EncoderError(f"none of the words of {corpus.texts} texts is in {model}")
        return write_fitted(replace(words, counts=counts, component=None, smoothing=smoothing), corpus, folder)


def write_fitted(words: Words, corpus: Iterable[list[str]], folder: str | Path) -> WordVectors:
    """Write words, with the common component of a corpus's texts."""
    vectors = list(_sampled(words, corpus))
    component = sif.principal_component(np.stack(vectors)) if len(vectors) > 1 else None
    word_store.write(Path(folder), replace(words, component=component))
    return WordVectors(str(folder))


def _sampled(words: Words, corpus: Iterable[list[str]]) -> Iterator[NDArray[np.float32]]:
    """SIF vectors, not yet less the component, of at most SAMPLE texts, drawn evenly (Vitter 1985, algorithm R)."""
    rng = np.random.default_rng(0)
    kept: list[list[int]] = []
    seen = 0
    for tokens in corpus:
        places = [words.places[token] for token in tokens if token in words.places]
        if not places:
            continue
        seen += 1
        if len(kept) < SAMPLE:
            kept.append(places)
        elif (at := int(rng.integers(seen))) < SAMPLE:
            kept[at] = places
    for places in kept:
        yield np.asarray(words.weights[places] @ words.vectors[places] / len(places), np.float32)


class _Ticking:
    """A corpus that says how often and how far it was read."""

    def __init__(self, corpus: Corpus, passes: int, progress: Progress | None) -> None:
        self.corpus, self.total, self.progress, self.done = corpus, passes * corpus.texts, progress, 0

    def __iter__(self) -> Iterator[list[str]]:
        for text in self.corpus:
            yield text
            self.done += 1
            if self.progress is not None and (self.done % 100 == 0 or self.done == self.total):
                self.progress(self.done, self.total)


def _train(
    texts: Iterable[str], folder: str | Path, recipe: WordRecipe, progress: Progress | None, make: Callable[..., Any]
) -> WordVectors:
    model_folder.prepare(folder)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = spool(texts, Path(scratch) / "corpus.txt")
        vocabulary = corpus.vocabulary(recipe.least)
        model = make(
            sg=int(recipe.skip_gram),
            vector_size=recipe.dim,
            window=recipe.window,
            negative=recipe.negative,
            sample=recipe.sample,
            alpha=recipe.learning_rate,
            min_count=1,
            workers=recipe.threads,
            seed=recipe.seed,
        )
        model.build_vocab_from_freq({word: corpus.counts[word] for word in vocabulary}, corpus_count=corpus.texts)
        model.train(
            _Ticking(corpus, recipe.epochs, progress),
            total_examples=corpus.texts,
            total_words=corpus.counts.total(),
            epochs=recipe.epochs,
        )
        words = replace(
            word_files.of_keyed_vectors(model),
            counts=np.array([corpus.counts[word] for word in model.wv.index_to_key], np.int64),
            smoothing=recipe.smoothing,
        )
        return write_fitted(words, corpus, folder)
