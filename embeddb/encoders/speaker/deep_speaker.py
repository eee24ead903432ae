"""``DeepSpeaker``: who speaks, as a vector; and, trained on words instead of speakers, what is said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings
from embeddb.encoders.speaker.filterbanks import RATE, log_filterbanks, normalise, pad
from embeddb.encoders.speaker.rescnn import ResCNN, Shape
from embeddb.encoders.speaker.windowed import Samples, embed_windows

if TYPE_CHECKING:
    from torch import Tensor

KIND: Final = "deep-speaker"
#: Sounds that go through the network together, in seconds: what bounds its memory.
BATCH_SECONDS: Final = 160.0

_networks: Final[Memo[model_folder.Identity, ResCNN]] = Memo(size=8)


@dataclass(frozen=True, slots=True, repr=False)
class DeepSpeaker(Settings):
    """A voice's vector, of length 1, by the residual network of Li et al. 2017 (https://arxiv.org/abs/1705.02304).

    ``model``: the folder that ``embeddb.train.train_speaker`` wrote. ``window``: seconds; a longer sound is cut
    into such windows, and its vector is the mean of theirs. Inputs are ``Waveform``; one that is shorter than
    25 ms or silent has no embedding. Compare by cosine.
    """

    model: str
    window: float = 10.0

    type: ClassVar[str] = "deep-speaker"
    modality: ClassVar[Modality] = "audio"
    sample_rate: ClassVar[int] = RATE

    @property
    def folder(self) -> Path:
        """Where the model is."""
        return Path(self.model).expanduser()

    @property
    def dim(self) -> int:
        return self.shape.dim

    @property
    def shape(self) -> Shape:
        """The network's size, from the model's configuration."""
        return Shape.from_dict(model_folder.read_config(self.folder, KIND)["shape"])

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{KIND} 1 {self.window} {model_folder.digest(self.folder)}".encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[object]) -> Vectors:
        """Vectors of shape (len(inputs), dim), of length 1, or NaN throughout for a sound of nothing."""
        network = _networks.get(model_folder.identity(self.folder), partial(load_network, self.folder))
        return embed_windows(
            inputs, partial(embed_sounds, network), self.dim, seconds=self.window, batch_seconds=BATCH_SECONDS
        )

    def encode_queries(self, inputs: Sequence[object]) -> Vectors:
        """The same: a voice asked for is a voice like any other."""
        return self.encode_documents(inputs)


def load_network(folder: Path) -> ResCNN:
    """The network of a folder, ready to embed."""
    import torch

    network = ResCNN(Shape.from_dict(model_folder.read_config(folder, KIND)["shape"]))
    tensors = {name: torch.from_numpy(tensor) for name, tensor in model_folder.read_tensors(folder).items()}
    network.layers.load_state_dict(tensors)
    network.layers.eval()
    return network


def embed_sounds(network: ResCNN, sounds: Sequence[Samples]) -> Vectors:
    """Vectors of sounds at 16 kHz, each the same as it would be alone."""
    import torch

    with torch.inference_mode():
        vectors: Tensor = network(*hear(*pad(sounds)))
    return np.asarray(vectors.numpy(), np.float32)


def hear(sounds: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What the network takes: normalised filterbanks (batch, frames, 64), and each sound's own frames."""
    banks, frames = log_filterbanks(sounds, lengths)
    return normalise(banks, frames), frames
