"""Fitting a vector to every token, so that the sum over a text's tokens points where the text's own vector does."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.settings import require
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.float32]
#: Columns and values of a sparse matrix row by row, and where each row starts: (rows + 1,).
Sparse = tuple["Tensor", "Tensor", "Tensor"]
#: Seconds between two savings of an unfinished fit.
_SAVED: Final = 10.0


@dataclass(frozen=True, eq=False, slots=True)
class Bags:
    """Texts as weighted tokens: those of text i are at ``starts[i]`` to ``starts[i + 1]`` of the other two.

    A token that occurs n times in a text weighs the root of n.
    """

    places: NDArray[np.int64]
    weights: Matrix
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], vocabulary: Mapping[str, int]) -> Bags:
        """Of the tokens of each text; what the vocabulary does not know is left out."""
        places: list[int] = []
        times: list[int] = []
        starts = [0]
        for tokens in texts:
            counted = Counter(vocabulary[token] for token in tokens if token in vocabulary)
            places += counted.keys()
            times += counted.values()
            starts.append(len(places))
        return cls(np.array(places, np.int64), np.sqrt(np.array(times, np.float32)), np.array(starts, np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def means(self) -> Bags:
        """The same, each text's tokens weighted by how often they occur, and the weights of a text summing to 1."""
        times = self.weights**2
        row = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return Bags(self.places, (times / np.bincount(row, times)[row]).astype(np.float32), self.starts)

    def sums(self, vectors: Matrix) -> Matrix:
        """The weighted sum of each text's token vectors, (texts, dim)."""
        torch = require("torch", "text", "distilling")
        summed = _sums(_sparse(self.places, self.weights, self.starts), torch.from_numpy(vectors))
        return np.asarray(summed.numpy())


def vocabulary(texts: Iterable[Sequence[str]], size: int, least: int) -> dict[str, int]:
    """The tokens that occur in ``least`` texts or more, the ``size`` most frequent at most: each with its place."""
    seen = Counter(token for tokens in texts for token in set(tokens))
    kept = sorted((token for token, texts in seen.items() if texts >= least), key=lambda token: (-seen[token], token))
    return {token: place for place, token in enumerate(kept[:size])}


def cosines(found: Matrix, wanted: Matrix) -> NDArray[np.float64]:
    """The cosine of each pair of rows; 0 where one of them is zero."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    products = np.einsum("ij,ij->i", found, wanted)
    return np.asarray(np.divide(products, lengths, out=np.zeros(len(found)), where=lengths > 0))


@dataclass(eq=False)
class Fit:
    """Ridge regression by conjugate gradients, all dimensions of ``targets`` (texts, dim) at once.

    What is minimised is |X V - targets|² + strength · |V / w|², with a row of X for each text, its tokens' weights,
    times w, scaled to length 1. w is a token's inverse document frequency, log(1 + texts / texts with it), so that rare
    tokens, which tell most about a text, are bound least. Method: Hestenes, Stiefel 1952, "Methods of Conjugate
    Gradients for Solving Linear Systems" (https://doi.org/10.6028/jres.049.044).

    ``plain``: without that weight, and with the rows of X as they are.

    ``losses``: for the caller to note how it went; they are kept with the state.

    ``path``: where ``keep`` saves the state, which is taken up again by the same fit on the same data.
    """

    bags: Bags
    targets: Matrix
    tokens: int
    strength: float
    path: Path | None = None
    plain: bool = False
    rounds: int = field(default=0, init=False)
    losses: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        torch = require("torch", "text", "distilling")
        bags = self.bags
        seen = np.bincount(bags.places, minlength=self.tokens)
        if not len(bags.places):
            raise EncoderError("none of these texts has a token: choose another tokenizer or text search configuration")
        row = np.repeat(np.arange(len(bags)), np.diff(bags.starts))
        self.rarity = np.ones((self.tokens, 1), np.float32)
        values = bags.weights
        if not self.plain:
            self.rarity = np.log1p(len(bags) / np.maximum(seen, 1)).astype(np.float32)[:, None]
            values = values * self.rarity[bags.places, 0]
            values = values / np.sqrt(np.bincount(row, values**2, len(bags)))[row].astype(np.float32)
        order = np.argsort(bags.places, kind="stable")
        self.forward = _sparse(bags.places, values, bags.starts)
        starts = np.concatenate([[0], np.cumsum(seen)])
        self.backward = _sparse(row[order], values[order], starts)
        self.saved = time.monotonic()
        self.run = hashlib.sha256()
        for part in (
            bags.places,
            bags.weights,
            bags.starts,
            np.ascontiguousarray(self.targets),
            np.float64(self.strength),
        ):
            self.run.update(part.tobytes())
        if not self._restore():
            self.solution = torch.zeros(self.tokens, self.targets.shape[1])
            self.residual = _sums(self.backward, torch.from_numpy(np.ascontiguousarray(self.targets)))
            self.direction = self.residual.clone()

    @property
    def vectors(self) -> Matrix:
        """(tokens, dim), as they are after the rounds so far."""
        return np.asarray(self.solution.numpy() * self.rarity)

    def step(self) -> None:
        """One round."""
        squared = (self.residual**2).sum(0)
        applied = _sums(self.backward, _sums(self.forward, self.direction)) + self.strength * self.direction
        along = squared / (self.direction * applied).sum(0).clamp_min(1e-30)
        self.solution += along * self.direction
        self.residual -= along * applied
        self.direction = self.residual + self.direction * ((self.residual**2).sum(0) / squared.clamp_min(1e-30))
        self.rounds += 1

    def keep(self) -> None:
        """Save the state, where the last time is ten seconds ago."""
        if self.path is not None and time.monotonic() - self.saved > _SAVED:
            tensors = {name: getattr(self, name).numpy() for name in ("solution", "residual", "direction")}
            about = {"run": self.run.hexdigest(), "rounds": self.rounds, "losses": self.losses}
            save_state(self.path, about, tensors)
            self.saved = time.monotonic()

    def _restore(self) -> bool:
        state = None if self.path is None else load_state(self.path, {"run": self.run.hexdigest()})
        if state is None:
            return False
        torch = require("torch", "text", "distilling")
        metadata, tensors = state
        self.rounds, self.losses = int(metadata["rounds"]), list(metadata["losses"])
        self.solution, self.residual, self.direction = (
            torch.from_numpy(tensors[name]) for name in ("solution", "residual", "direction")
        )
        return True


def save_state(path: Path, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Keep the state of a run: a safetensors file, replaced whole."""
    save: Any = require("safetensors.numpy", "text", "distilling").save
    path.parent.mkdir(parents=True, exist_ok=True)
    model_folder.replace(path, save(dict(tensors), {"state": json.dumps(dict(about))}))


def load_state(path: Path, run: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """The state that was kept of this run; None where there is none, or that of another one."""
    library: Any = require("safetensors", "text", "distilling")
    if not path.exists():
        return None
    try:
        with library.safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()["state"])
            if any(about.get(name) != value for name, value in run.items()):
                return None
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, KeyError, TypeError, ValueError, library.SafetensorError) as error:
        raise EncoderError(f"{path} cannot be read: {error}; delete it to begin anew") from error


def _sparse(columns: NDArray[np.int64], values: Matrix, starts: NDArray[np.int64]) -> Sparse:
    torch = require("torch", "text", "distilling")
    return torch.from_numpy(columns), torch.from_numpy(values), torch.from_numpy(starts)


def _sums(matrix: Sparse, vectors: Tensor) -> Tensor:
    """A sparse matrix times a dense one."""
    from torch.nn.functional import embedding_bag

    columns, values, starts = matrix
    return embedding_bag(columns, vectors, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
