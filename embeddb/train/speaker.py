"""Training DeepSpeaker: first to name the speakers, then to keep them apart (Li et al. 2017, section 3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder
from embeddb.encoders.speaker.deep_speaker import KIND, DeepSpeaker, embed_sounds, hear, load_network
from embeddb.encoders.speaker.filterbanks import RATE
from embeddb.encoders.speaker.rescnn import ResCNN, Shape
from embeddb.errors import EncoderError
from embeddb.train.augmentation import Augmentation
from embeddb.train.checkpoint import Checkpoint
from embeddb.verification import equal_error_rate, pair_scores, threshold_at
from embeddb.waveform import Waveform, check, resample

if TYPE_CHECKING:
    from torch import Tensor

#: Called after each step with the steps done, of how many, and the loss.
Report = Callable[[int, int, float], None]

#: A network that a laptop trains in a minute or two; ``Shape()`` is the paper's, for a GPU and hours of speech.
SMALL: Final = Shape(channels=(8, 16, 32, 64), blocks=1, dim=128)
SCALE: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerRecipe:
    """How a speaker network is trained.

    ``shape``: of a new network; further training keeps the old one's. ``softmax_steps``: batches of ``batch``
    sounds with additive margin softmax (Wang et al. 2018, https://arxiv.org/abs/1801.05599); ``triplet_steps``:
    batches of ``speakers`` × ``takes`` with the hardest triplets (Hermans et al. 2017,
    https://arxiv.org/abs/1703.07737), at a tenth of ``learning_rate``. ``crop``: least and most seconds of each
    sound that a step hears; a shorter sound is repeated. ``speeds``: each makes another speaker of every one, since
    a voice played faster is another voice (Yamamoto et al. 2019, "Speaker Augmentation and Bandwidth Extension
    for Deep Speaker Embedding"): for few speakers. ``held_out``: the share of speakers that are never trained on
    but measure the result.
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

    folder = Path(folder)
    voices, unheard = _hold_out(Voices.read(rows), recipe)
    voices = voices.at_speeds(recipe.speeds)
    torch.manual_seed(recipe.seed)
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
    config = {"kind": KIND, "shape": network.shape.to_dict(), "measured": _measure(network, unheard)}
    tensors = {name: tensor.detach().numpy() for name, tensor in network.layers.state_dict().items()}
    model_folder.write(folder, config, tensors)
    checkpoint.remove()
    return DeepSpeaker(str(folder))


@dataclass(frozen=True, slots=True)
class Voices:
    """Sounds at 16 kHz as 16 bit samples, and who speaks: ``labels`` are places in ``names``."""

    sounds: list[NDArray[np.int16]]
    labels: NDArray[np.int64]
    names: list[str]

    @classmethod
    def read(cls, rows: Iterable[tuple[Waveform, str]]) -> Voices:
        """The rows, in their order."""
        sounds: list[NDArray[np.int16]] = []
        speakers: list[str] = []
        for position, (waveform, speaker) in enumerate(rows):
            check(waveform, f"row {position} ({speaker})")
            samples = resample(waveform, RATE).samples
            # Loudness does not matter, so all of the 16 bits are used.
            sounds.append(np.rint(samples / np.abs(samples).max() * 32767).astype(np.int16))
            speakers.append(speaker)
        names, labels = np.unique(np.array(speakers, dtype=object).astype(str), return_inverse=True)
        return cls(sounds, labels.astype(np.int64), names.tolist())

    def of(self, keep: NDArray[np.bool_]) -> Voices:
        """Those sounds, and the speakers that have any."""
        present, labels = np.unique(self.labels[keep], return_inverse=True)
        sounds = [self.sounds[index] for index in np.flatnonzero(keep)]
        return Voices(sounds, labels.astype(np.int64), [self.names[label] for label in present])

    def at_speeds(self, speeds: Sequence[float]) -> Voices:
        """Every sound at each speed, of as many times more speakers."""
        sounds = [_faster(sound, speed) for speed in speeds for sound in self.sounds]
        labels = [self.labels + turn * len(self.names) for turn in range(len(speeds))]
        return Voices(
            sounds, np.concatenate(labels), [f"{name} × {speed:g}" for speed in speeds for name in self.names]
        )

    @property
    def digest(self) -> str:
        """Of the sounds, their order and their speakers."""
        hashed = hashlib.sha256(repr((self.names, self.labels.tolist())).encode())
        for sound in self.sounds:
            hashed.update(sound.tobytes())
        return hashed.hexdigest()

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """So many different sounds, or all."""
        return rng.choice(len(self.sounds), min(count, len(self.sounds)), replace=False)

    def draw_takes(self, speakers: int, takes: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``takes`` sounds of each of so many speakers, or of all; a speaker with fewer sounds repeats them."""
        drawn = []
        for label in rng.choice(len(self.names), min(speakers, len(self.names)), replace=False):
            own = np.flatnonzero(self.labels == label)
            drawn.append(rng.choice(own, takes, replace=len(own) < takes))
        return np.concatenate(drawn)

    def crops(self, chosen: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random piece of ``size`` samples of each, within -1 and 1."""
        pieces = np.empty((len(chosen), size), np.float32)
        for row, index in enumerate(chosen):
            sound = self.sounds[index]
            if len(sound) < size:
                sound = np.tile(sound, -(-size // len(sound)))
            at = int(rng.integers(0, len(sound) - size + 1))
            pieces[row] = sound[at : at + size]
        pieces /= 32767
        return pieces


def _hold_out(voices: Voices, recipe: SpeakerRecipe) -> tuple[Voices, Voices]:
    """Who is trained on, and who measures the result: nobody where that would be a single speaker."""
    count = int(len(voices.names) * recipe.held_out)
    unheard = np.random.default_rng(recipe.seed).permutation(len(voices.names))[: count if count > 1 else 0]
    apart = np.isin(voices.labels, unheard)
    kept = voices.of(~apart)
    if len(kept.names) < 2:
        raise EncoderError(f"a speaker network is trained on two speakers or more, not {len(kept.names)}")
    return kept, voices.of(apart)


def _faster(sound: NDArray[np.int16], speed: float) -> NDArray[np.int16]:
    ratio = Fraction(speed).limit_denominator(20)
    faster = resample(Waveform(sound.astype(np.float32), ratio.numerator), ratio.denominator).samples
    return np.rint(np.clip(faster, -32767, 32767)).astype(np.int16)


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
