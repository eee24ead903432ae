"""What an encoder is: anything with these six members. No base class is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Modality = Literal["text", "image", "audio", "history"]
Vectors = NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """Turns sources of one modality into float32 vectors, and queries too.

    Constructing an encoder, and reading ``modality`` or ``config``, is cheap and loads no model; the model is
    loaded once, at the first need. Every method may be called from several threads. Two encoders that compare
    equal give equal vectors, and ``repr`` names the encoder in errors, so a frozen dataclass is a good start.

    An encoder may also have ``inputs_per_call``, an int: how many inputs ``embed_documents`` hands over at a time; and
    ``query_modalities``, a tuple: what its queries may be where that is more than ``modality``.
    """

    @property
    def modality(self) -> Modality:
        """What ``encode_documents`` takes: str for text, PIL images, float32 waveforms, lists of events."""
        ...

    @property
    def dim(self) -> int:
        """Dimensions of every vector. May read the model's configuration file, never its weights."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes exactly when the vectors may change: of the weights and settings, not of their place."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """JSON that makes this encoder again by ``embeddb.encoders.from_config``. ``type`` names it in the
        registry. Never holds a secret: keys are given as the name of an environment variable.
        """
        ...

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32, in the order of the inputs.

        A row that is NaN throughout says: this input has no embedding (no known word, say); it is stored as
        NULL. Raises RateLimited or TransientEncoderError where trying again later is right, else EncoderError.
        """
        ...

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        """The same for queries, which may have another prompt or another tower."""
        ...
