"""Training GRU4Rec: after every event, tell the next one from all the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.history import catalogue
from embeddb.encoders.history.events import Item
from embeddb.encoders.history.gru4rec import GRU4Rec, Network
from embeddb.errors import EncoderError
from embeddb.train.checkpoint import Checkpoint
from embeddb.train.items import Events, gather

if TYPE_CHECKING:
    from torch import Tensor

#: Called after each epoch with the epochs done, of how many, and the mean loss.
Report = Callable[[int, int, float], None]

SCALE: Final = 15.0
IGNORED: Final = -100  # torch's cross_entropy skips it


@dataclass(frozen=True, slots=True, kw_only=True)
class GRU4RecRecipe:
    """How the network is trained.

    ``length``: the last events of a history that are read. ``candidates``: items that each step tells the next
    one from: those of the batch, and others drawn at random; all of them where there are no more.
    """

    dim: int = 64
    hidden: int = 128
    length: int = 50
    epochs: int = 20
    batch: int = 64
    learning_rate: float = 3e-3
    dropout: float = 0.2
    candidates: int = 5_000
    least: int = 1
    seed: int = 0


def train_gru4rec(
    events: Events,
    folder: str | Path,
    recipe: GRU4RecRecipe = GRU4RecRecipe(),
    *,
    report: Report | None = None,
) -> GRU4Rec:
    """Train on (user, item, time, weight), of which weights do not matter, and write the model to ``folder``.

    After an interruption it goes on from the last epoch; where the folder holds the model of the same recipe and
    events it does nothing. Raises EncoderError where a checkpoint in the folder is of others.
    """
    import torch
    from torch.nn.functional import cross_entropy, dropout, normalize

    model_folder.prepare(folder)
    items, known = gather(events, recipe.least)
    places = {item: place for place, item in enumerate(items)}
    sequences = [[places[event.item] for event in history][-recipe.length - 1 :] for history in known]
    sequences = [sequence for sequence in sequences if len(sequence) > 1]
    if not sequences:
        raise EncoderError("every history is a single event: there is no next one to learn from")
    run = {"recipe": asdict(recipe), "data": _digest(items, sequences)}
    if _is_there(Path(folder), run):
        return GRU4Rec(str(folder))
    torch.manual_seed(recipe.seed)
    network = Network(len(items), recipe.dim, recipe.hidden)
    optimizer = torch.optim.AdamW(network.layers.parameters(), recipe.learning_rate)
    checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", run)
    for epoch in range(checkpoint.restore({"network": network.layers}, optimizer), recipe.epochs):
        # Every epoch draws from generators of its own, so that a run that goes on draws what it would have drawn.
        rng = np.random.default_rng((recipe.seed, epoch))
        torch.manual_seed(int(rng.integers(2**62)))
        losses = []
        order = rng.permutation(len(sequences))
        for start in range(0, len(order), recipe.batch):
            read, following = _batch([sequences[index] for index in order[start : start + recipe.batch]])
            chosen = _candidates(following, len(items), recipe.candidates, rng)
            users = network(read)[following != IGNORED]
            among = torch.searchsorted(chosen, following[following != IGNORED])
            users = dropout(users, recipe.dropout)
            loss = cross_entropy(SCALE * users @ normalize(network.embedding(chosen), dim=1).T, among)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            losses.append(loss.item())
        if report is not None:
            report(epoch + 1, recipe.epochs, float(np.mean(losses)))
        checkpoint.save(epoch + 1, {"network": network.layers}, optimizer)
    config = {"kind": GRU4Rec.type, "hidden": recipe.hidden, "length": recipe.length, "run": run}
    targets = normalize(network.embedding.weight.detach(), dim=1).numpy()
    others = {name: tensor.detach().numpy() for name, tensor in network.layers.state_dict().items()}
    catalogue.write(Path(folder), config, items, targets, others)
    checkpoint.remove()
    return GRU4Rec(str(folder))


def _digest(items: list[Item], sequences: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps([items, sequences]).encode()).hexdigest()


def _is_there(folder: Path, run: Mapping[str, Any]) -> bool:
    """Whether this very model was trained already."""
    try:
        return bool(model_folder.read_config(folder, GRU4Rec.type).get("run") == run)
    except EncoderError:
        return False


def _batch(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """What is read, and what follows each of it (IGNORED beyond a sequence's end): (batch, events) both."""
    import torch

    longest = max(map(len, sequences)) - 1
    read = torch.zeros(len(sequences), longest, dtype=torch.long)
    following = torch.full((len(sequences), longest), IGNORED)
    for row, sequence in enumerate(sequences):
        read[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
        following[row, : len(sequence) - 1] = torch.tensor(sequence[1:])
    return read, following


def _candidates(following: Tensor, items: int, count: int, rng: np.random.Generator) -> Tensor:
    """Places of items, sorted: all that follow in this batch, and random others up to ``count``."""
    import torch

    if items <= count:
        return torch.arange(items)
    drawn = torch.from_numpy(rng.integers(0, items, count))
    candidates: Tensor = torch.unique(torch.cat([following[following != IGNORED], drawn]))
    return candidates
