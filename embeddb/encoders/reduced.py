"""``Reduced``: another encoder's vectors, turned to their principal components and cut to the first of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Encoder, Modality, Vectors
from embeddb.encoders.registry import resolve
from embeddb.encoders.settings import Settings
from embeddb.errors import EncoderError

KIND: Final = "pca"


class Projection(NamedTuple):
    """``mean``: (from,), taken away first. ``components``: (to, from), orthonormal rows, most variance first."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]


_projections: Final[Memo[tuple[model_folder.Identity, Encoder], Projection]] = Memo(size=8)


@dataclass(frozen=True, slots=True, repr=False)
class Reduced(Settings):
    """What ``encoder`` makes, projected; queries are projected as documents are.

    ``encoder``: an encoder, or the configuration or name of one. ``model``: the folder that ``embeddb fit-pca`` wrote,
    of rows that this same encoder embedded; EncoderError at the first use where it was another. Lengths are kept as
    they come: compare by the metric that the components were fitted for.
    """

    encoder: Encoder
    model: str

    type: ClassVar[str] = "reduced"

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", resolve(self.encoder))
        object.__setattr__(self, "model", str(self.model))

    @property
    def modality(self) -> Modality:
        return self.encoder.modality

    @property
    def query_modalities(self) -> tuple[str, ...]:
        return tuple(getattr(self.encoder, "query_modalities", (self.modality,)))

    @property
    def inputs_per_call(self) -> int:
        return int(getattr(self.encoder, "inputs_per_call", 256))

    @property
    def dim(self) -> int:
        return int(self._told["dim"])

    @property
    def fingerprint(self) -> str:
        parts = f"{self.type} 1 {self.encoder.fingerprint} {model_folder.digest(self._folder)}"
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def config(self) -> Mapping[str, Any]:
        return {"type": self.type, "encoder": dict(self.encoder.config), "model": self.model}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(inputs), dim); NaN throughout where the encoder has none."""
        return self.project(self.encoder.encode_documents(inputs))

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        """The same, of what the encoder makes of queries."""
        return self.project(self.encoder.encode_queries(inputs))

    def project(self, vectors: Vectors) -> Vectors:
        """Vectors of the encoder, of shape (n, from), in fewer dimensions: what is stored need not be encoded again."""
        projection = _projections.get((model_folder.identity(self._folder), self.encoder), self._load)
        if vectors.shape[1] != len(projection.mean):
            raise EncoderError(
                f"{self.encoder!r} makes {vectors.shape[1]} dimensions, and {self.model} was fitted to "
                f"{len(projection.mean)}: fit again"
            )
        projected = np.asarray((vectors - projection.mean) @ projection.components.T, np.float32)
        # At right angles to all that is kept: there is nothing left of it.
        projected[~projected.any(axis=1)] = np.nan
        return projected

    def _load(self) -> Projection:
        fitted = self._told.get("fingerprint")
        if fitted not in (None, self.encoder.fingerprint):
            raise EncoderError(
                f"{self.model} was fitted to the vectors of another encoder than {self.encoder!r}: fit again"
            )
        tensors = model_folder.read_tensors(self._folder)
        try:
            return Projection(tensors["mean"], tensors["components"])
        except KeyError as error:
            raise EncoderError(f"{self.model} lacks the tensor {error}: fit again") from None

    @property
    def _folder(self) -> Path:
        return Path(self.model).expanduser()

    @property
    def _told(self) -> dict[str, Any]:
        return model_folder.read_config(self._folder, KIND)


def write(folder: Path, projection: Projection, told: Mapping[str, Any]) -> None:
    """Write a projection as ``Reduced`` reads it; ``told``: more to note, as the encoder's ``fingerprint``."""
    config = {"kind": KIND, "dim": len(projection.components), **told}
    model_folder.write(folder, config, projection._asdict())
