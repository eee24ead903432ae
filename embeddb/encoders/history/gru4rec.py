"""``GRU4Rec``: a user as the state of a recurrent network that has read their history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.history.base import HistoryEncoder
from embeddb.encoders.history.catalogue import Catalogue
from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Vectors

if TYPE_CHECKING:
    from torch import Tensor

#: Histories that are read together.
BATCH: Final = 256

_networks: Final[Memo[model_folder.Identity, Network]] = Memo(size=8)


class Network:
    """Items' vectors, a GRU over them, and a linear map of its state back into their space."""

    def __init__(self, items: int, dim: int, hidden: int) -> None:
        from torch import nn

        self.embedding = nn.Embedding(items, dim)
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.out = nn.Linear(hidden, dim)
        self.layers = nn.ModuleDict({"embedding": self.embedding, "gru": self.gru, "out": self.out})

    def __call__(self, places: Tensor) -> Tensor:
        """The user's vector (batch, events, dim), of length 1, after each event of (batch, events)."""
        from torch.nn.functional import normalize

        states, _ = self.gru(self.embedding(places))
        return normalize(self.out(states), dim=-1)


@dataclass(frozen=True, slots=True, repr=False)
class GRU4Rec(HistoryEncoder):
    """The state of a GRU after a user's last events, from the model that ``embeddb.train.train_gru4rec`` wrote.

    Hidasi et al. 2016, "Session-based Recommendations with Recurrent Neural Networks"
    (https://arxiv.org/abs/1511.06939). The order of events matters, their weights do not. Vectors have length 1.
    """

    model: str

    type: ClassVar[str] = "gru4rec"

    def _encode(self, loaded: Catalogue, histories: Sequence[list[tuple[int, float, float]]]) -> Vectors:
        import torch

        config = model_folder.read_config(self.folder, self.type)
        make = partial(load_network, config, loaded.others)
        network = _networks.get(model_folder.identity(self.folder), make)
        longest: int = config["length"]
        recent = [[place for place, _, _ in events[-longest:]] for events in histories]
        vectors = np.empty((len(recent), config["dim"]), np.float32)
        for start in range(0, len(recent), BATCH):
            batch = recent[start : start + BATCH]
            # Zeros behind are read after the last event, where nobody looks.
            places = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
            for row, own in enumerate(batch):
                places[row, : len(own)] = torch.tensor(own)
            last = torch.tensor([len(own) - 1 for own in batch])
            with torch.inference_mode():
                vectors[start : start + BATCH] = network(places)[torch.arange(len(batch)), last].numpy()
        return vectors


def load_network(config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Network:
    """The network of a model's configuration and tensors."""
    import torch

    network = Network(config["items"], config["dim"], config["hidden"])
    network.layers.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    network.layers.eval()
    return network
