"""Training DeepSpeaker: first to name the speakers, then to keep them apart (Li et al. 2017, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from embeddb.encoders import model_folder
from embeddb.encoders.speaker.deep_speaker import KIND, DeepSpeaker, embed_sounds, hear, load_network
from embeddb.encoders.speaker.filterbanks import RATE, pad
from embeddb.encoders.speaker.rescnn import ResCNN, Shape
from embeddb.errors import EncoderError
from embeddb.train.augmentation import Augmentation
from embeddb.train.checkpoint import Checkpoint
from embeddb.train.voices import Voices
from embeddb.verification import equal_error_rate, pair_scores, threshold_at
from embeddb.waveform import Waveform

if TYPE_CHECKING:
    from torch import Tensor

#: Called after each step with the steps done, of how many, and the loss.
Report = Callable[[int, int, float], None]

#: A network that a laptop trains in a minute or two; ``Shape()`` is the paper's, for a GPU and hours of speech.
SMALL: Final = Shape(channels=(8, 16, 32, 64), blocks=1, dim=128)
SCALE: Final = 20.0
#: Sounds of each speaker that say where the speaker's mean is.
CENTRED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerRecipe:
    """How a speaker network is trained.

    ``shape``: of a new network; further training keeps the old one's. ``softmax_steps``: batches of ``batch``
    sounds with additive margin softmax (Wang et al. 2018, https://arxiv.org/abs/1801.05599); ``triplet_steps``:
    batches of ``speakers`` × ``takes`` with the hardest triplets (Hermans et al. 2017,
    https://arxiv.org/abs/1703.07737), at a tenth of ``learning_rate``. ``crop``: least and most seconds of each
    sound that a step hears; a shorter sound is repeated. ``speeds``: at which every sound is heard; each makes
    another speaker of every one, since a voice played faster is another voice (Yamamoto et al. 2019, "Speaker
    Augmentation and Bandwidth Extension for Deep Speaker Embedding"), which helps where speakers are few.
    ``labels``: what is told apart; of "words", speeds make no others. ``held_out``: the share of labels that are
    never trained on but measure the result.
    """

    shape: Shape = SMALL
    softmax_steps: int = 600
    triplet_steps: int = 100
    batch: int = 64
    speakers: int = 16
    takes: int = 4
    crop: tuple[float, float] = (0.4, 1.0)
    speeds: tuple[float, ...] = (1.0,)
    learning_rate: float = 3e-3
    softmax_margin: float = 0.2
    triplet_margin: float = 0.3
    augmentation: Augmentation = field(default_factory=Augmentation)
    labels: Literal["speakers", "words"] = "speakers"
    held_out: float = 0.1
    seed: int = 0


def train_speaker(
    rows: Iterable[tuple[Waveform, str]],
    folder: str | Path,
    recipe: SpeakerRecipe = SpeakerRecipe(),
    *,
    start: str | Path | None = None,
    report: Report | None = None,
    checkpoint_every: int = 100,
) -> DeepSpeaker:
    """Train on (sound, speaker) and write the model to ``folder``. ``start``: the folder of a model to train further.

    The state is kept in the folder every so many steps; the same call goes on from there after an interruption,
    to the same weights. The sounds are held in memory as 16 bit samples at 16 kHz: 115 MB an hour. What was
    measured on the speakers held out (the EER, and the cosine above which 1% of strangers would pass) is
    written to config.json. Raises EncoderError for fewer than two speakers to train on, SourceError for a sound
    of nothing.
    """
    import torch

    folder = model_folder.prepare(folder)
    voices, unheard = _hold_out(Voices.read(rows), recipe)
    torch.manual_seed(recipe.seed)
    original, voices = voices, voices.at_speeds(recipe.speeds, same=recipe.labels == "words")
    network = ResCNN(recipe.shape) if start is None else load_network(Path(start))
    network.layers.train()
    head = torch.nn.Linear(network.shape.dim, len(voices.names), bias=False)
    run = {"recipe": asdict(recipe), "data": voices.digest, "start": start and model_folder.digest(Path(start))}
    optimizer = torch.optim.AdamW([*network.layers.parameters(), *head.parameters()], weight_decay=1e-3)
    checkpoint = Checkpoint(folder / "checkpoint.safetensors", run)
    modules = {"network": network.layers, "head": head}
    steps = recipe.softmax_steps + recipe.triplet_steps
    for step in range(checkpoint.restore(modules, optimizer), steps):
        # Every step has a generator of its own, so that a run that goes on draws what it would have drawn.
        rng = np.random.default_rng((recipe.seed, step))
        naming = step < recipe.softmax_steps
        chosen = voices.draw(recipe.batch, rng) if naming else voices.draw_takes(recipe.speakers, recipe.takes, rng)
        crops = voices.crops(chosen, round(rng.uniform(*recipe.crop) * RATE), rng)
        sounds = recipe.augmentation(torch.from_numpy(crops), rng)
        vectors = network(*hear(sounds, torch.full((len(chosen),), sounds.shape[1])))
        labels = torch.from_numpy(voices.labels[chosen])
        loss = _softmax(vectors, labels, head.weight, recipe) if naming else _triplet(vectors, labels, recipe)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, recipe)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        if report is not None:
            report(step + 1, steps, loss.item())
        if (step + 1) % checkpoint_every == 0:
            checkpoint.save(step + 1, modules, optimizer)
    network.layers.eval()
    _centre(network, original)
    config = {"kind": KIND, "shape": network.shape.to_dict(), "measured": _measure(network, unheard)}
    tensors = {name: tensor.detach().numpy() for name, tensor in network.layers.state_dict().items()}
    model_folder.write(folder, config, tensors)
    checkpoint.remove()
    return DeepSpeaker(str(folder))


def _hold_out(voices: Voices, recipe: SpeakerRecipe) -> tuple[Voices, Voices]:
    """Who is trained on, and who measures the result: nobody where that would be a single speaker."""
    count = int(len(voices.names) * recipe.held_out)
    unheard = np.random.default_rng(recipe.seed).permutation(len(voices.names))[: count if count > 1 else 0]
    apart = np.isin(voices.labels, unheard)
    kept = voices.of(~apart)
    if len(kept.names) < 2:
        raise EncoderError(f"a speaker network is trained on two speakers or more, not {len(kept.names)}")
    return kept, voices.of(apart)


def _rate(step: int, recipe: SpeakerRecipe) -> float:
    """A tenth of the first phase warms up; then half a cosine falls to nothing. The second has a constant tenth."""
    if step >= recipe.softmax_steps:
        return recipe.learning_rate / 10
    warm = min(1.0, (step + 1) / (0.1 * recipe.softmax_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.softmax_steps))


def _softmax(vectors: Tensor, labels: Tensor, weight: Tensor, recipe: SpeakerRecipe) -> Tensor:
    """Cross entropy of scaled cosines, that of the true speaker less a margin."""
    from torch.nn.functional import cross_entropy, normalize, one_hot

    cosines = vectors @ normalize(weight, dim=1).T
    return cross_entropy(SCALE * (cosines - recipe.softmax_margin * one_hot(labels, len(weight))), labels)


def _triplet(vectors: Tensor, labels: Tensor, recipe: SpeakerRecipe) -> Tensor:
    """Each sound against the least like of its own speaker and the most like of another."""
    cosines = vectors @ vectors.T
    same = labels[:, None] == labels
    own = cosines.masked_fill(~same, math.inf).amin(1)
    other = cosines.masked_fill(same, -math.inf).amax(1)
    return (recipe.triplet_margin + other - own).clamp_min(0).mean()


def _centre(network: ResCNN, voices: Voices) -> None:
    """Move the mean of all voices to the origin, so that the cosine of two strangers is about nothing."""
    import torch

    means = []
    with torch.inference_mode():
        for label in range(len(voices.names)):
            own = np.flatnonzero(voices.labels == label)[:CENTRED]
            projected = [network.project(*hear(*pad([voices.sounds[index].astype(np.float32)]))) for index in own]
            means.append(torch.cat(projected).mean(0))
    with torch.no_grad():
        network.affine.bias.sub_(torch.stack(means).mean(0))


def _measure(network: ResCNN, voices: Voices) -> dict[str, Any] | None:
    if not voices.sounds:
        return None
    vectors = np.concatenate([embed_sounds(network, [sound.astype(np.float32)]) for sound in voices.sounds])
    same, different = pair_scores(vectors, voices.labels.tolist())
    if not len(same):
        return None
    equal = equal_error_rate(same, different)
    return {
        "speakers": len(voices.names),
        "pairs": len(same) + len(different),
        "eer": round(equal.rate, 4),
        "threshold_eer": round(equal.threshold, 4),
        "threshold_false_accept_1%": round(threshold_at(different, 0.01), 4),
    }
