"""``WordVectors``: a text as the weighted mean of its words' vectors (Word2Vec, GloVe, FastText)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder, sif, word_files, word_store
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings
from embeddb.encoders.word_store import Words
from embeddb.encoders.word_tokens import fold, tokens
from embeddb.errors import EncoderError

Weighting = Literal["sif", "mean"]
Unknown = Literal["subwords", "skip", "error"]

#: Below this share of a text's own length, what is left without the common component is rounding.
_NOTHING = 1e-5


class WordTable(NamedTuple):
    """All that the vector of a text needs: the mean of its tokens' ``vectors``, less its part along ``component``.

    ``words``: folded, each once; ``vectors``: (words, dim), weighted already; ``component``: (dim,), of length 1.
    """

    words: Sequence[str]
    vectors: NDArray[np.float32]
    component: NDArray[np.float32] | None


class Neighbour(NamedTuple):
    """A word, and its cosine to what was asked for."""

    word: str
    score: float


@dataclass(frozen=True, slots=True, repr=False)
class WordVectors(Settings):
    """The weighted mean of the vectors of a text's words; the order of the words is not seen.

    ``model``: a folder that ``embeddb.train`` wrote, or a file: word2vec (text or binary), GloVe, FastText (.vec or
    .bin). A file is converted once, below $EMBEDDB_CACHE (by default ~/.cache/embeddb), and then mapped into memory.
    ``weighting``: "sif" weighs rare words more, and takes away what all texts have in common where the model has
    learned that (Arora, Liang, Ma 2017; see ``embeddb.train.words.adapt``); "mean" does neither. ``unknown``: words
    outside the vocabulary are made of their subwords where the model has such (FastText), else skipped; or always
    skipped; or an error. ``normalize``: scale to length 1.

    Words are told apart by ``word_tokens.tokens``. A text without a known word has no embedding.
    """

    model: str
    weighting: Weighting = "sif"
    unknown: Unknown = "subwords"
    normalize: bool = True

    type: ClassVar[str] = "words"
    modality: ClassVar[Modality] = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        if self.weighting not in get_args(Weighting) or self.unknown not in get_args(Unknown):
            raise EncoderError(
                f"{self!r}: weighting is one of {', '.join(get_args(Weighting))}, unknown one of "
                f"{', '.join(get_args(Unknown))}"
            )

    @property
    def dim(self) -> int:
        path = self._path()
        if path.is_dir():
            return int(model_folder.read_config(path, word_store.KIND)["dim"])
        return word_files.dimensions(path)

    @property
    def fingerprint(self) -> str:
        # The number rises when tokens or weights are made otherwise.
        parts = ["words", 1, self.weighting, self.unknown, self.normalize, model_folder.digest(self._folder())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def loaded(self) -> Words:
        """The vocabulary and its vectors: rows for a table of words."""
        return word_store.load(self._folder())

    @property
    def table(self) -> WordTable:
        """What this encoder computes with, for computing it elsewhere; words outside it count as unknown."""
        words = self.loaded
        places = np.fromiter(words.places.values(), np.intp, len(words.places))
        vectors = words.vectors[places]
        if self.weighting == "sif":
            vectors = vectors * words.weights[places, None]
        return WordTable(tuple(words.places), vectors, words.component if self.weighting == "sif" else None)

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32; NaN throughout for a text without a known word."""
        words = self.loaded
        # In double precision: what is left without the common component may be little.
        vectors = np.full((len(inputs), words.vectors.shape[1]), np.nan)
        for row, text in enumerate(inputs):
            vectors[row] = self._mean(words, tokens(text), row)
        if self.weighting == "sif" and words.component is not None:
            before = np.linalg.norm(vectors, axis=1)
            vectors = sif.without(vectors, words.component)
            vectors[np.linalg.norm(vectors, axis=1) < _NOTHING * before] = np.nan
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[lengths[:, 0] == 0] = np.nan
        return np.asarray(vectors / lengths if self.normalize else vectors, np.float32)

    def encode_queries(self, inputs: Sequence[str]) -> Vectors:
        """The same: queries are texts like any other."""
        return self.encode_documents(inputs)

    def vector(self, word: str) -> NDArray[np.float32]:
        """The vector of one word as it is in the model, (dim,).

        Of the word as it is written, else folded, else by its subwords. Raises EncoderError for a word not known.
        """
        words = self.loaded
        place = words.exact_places.get(word, words.places.get(fold(word)))
        if place is not None:
            return np.asarray(words.vectors[place])
        made = words.subwords.vector(fold(word)) if words.subwords is not None else None
        if made is None:
            raise EncoderError(f"{self!r} does not know the word {word!r}")
        return made

    def nearest_words(
        self, to: str | NDArray[np.float32], *, limit: int = 10, exclude: Iterable[str] = ()
    ) -> list[Neighbour]:
        """The words of the vocabulary nearest by cosine to a word (which is left out) or to a vector, best first."""
        words = self.loaded
        left_out = {*exclude, to} if isinstance(to, str) else set(exclude)
        vector = self.vector(to) if isinstance(to, str) else np.asarray(to, np.float32)
        lengths = np.linalg.norm(words.vectors, axis=1) * np.linalg.norm(vector)
        scores = np.divide(
            words.vectors @ vector, lengths, out=np.full(len(lengths), -2, np.float32), where=lengths > 0
        )
        best = np.argsort(-scores, kind="stable")[: limit + len(left_out)]
        found = [Neighbour(words.words[place], float(scores[place])) for place in best]
        return [neighbour for neighbour in found if neighbour.word not in left_out][:limit]

    def analogy(self, a: str, b: str, c: str) -> NDArray[np.float32]:
        """The vector of what is to ``c`` as ``b`` is to ``a``: b - a + c, each at length 1 (Mikolov, Yih, Zweig 2013).

        To be looked up among words other than the three: ``nearest_words(vector, exclude=(a, b, c))``, or a table.
        """
        first, second, third = (vector / np.linalg.norm(vector) for vector in map(self.vector, (a, b, c)))
        return np.asarray(second - first + third, np.float32)

    def _mean(self, words: Words, found: Sequence[str], row: int) -> NDArray[np.float64]:
        """The weighted mean over the tokens that have a vector; NaN where none has."""
        places = [words.places[token] for token in found if token in words.places]
        weights = words.weights[places] if self.weighting == "sif" else np.ones(len(places), np.float32)
        total = weights.astype(float) @ words.vectors[places]
        count = len(places)
        for token in found if count < len(found) else ():
            if token in words.places:
                continue
            if self.unknown == "error":
                raise EncoderError(f"{self!r} does not know the word {token!r}", position=row)
            made = words.subwords.vector(token) if words.subwords is not None and self.unknown == "subwords" else None
            if made is not None:  # p = 0, so SIF's weight is 1
                total = total + made
                count += 1
        return np.asarray(total / count if count else np.full_like(total, np.nan))

    def _path(self) -> Path:
        path = Path(self.model).expanduser()
        if not path.exists():
            raise EncoderError(f"{self!r}: there is no such file or folder")
        return path

    def _folder(self) -> Path:
        """Where the vectors are mapped from."""
        path = self._path()
        return path if path.is_dir() else word_store.cached(path, partial(word_files.read, path))
