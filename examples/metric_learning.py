"""A small network that learns to tell anything apart: pictures of one person near each other, of two people far away.

It is taught to name some identities by additive margin softmax (Wang et al. 2018, https://arxiv.org/abs/1801.05599) and
used on others: the names are thrown away, what led to them is the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from embeddb import Module

SIDE = 32
Draw = Callable[[NDArray[np.float64], np.random.Generator], Image.Image]


def network(dim: int = 64) -> nn.Sequential:
    """From (n, 1, 32, 32) to (n, dim)."""

    def stage(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    halved = nn.Conv2d(1, 16, 5, stride=2, padding=2)
    return nn.Sequential(
        halved, nn.BatchNorm2d(16), nn.ReLU(), *stage(16, 32), *stage(32, 48), nn.Flatten(), nn.Linear(48 * 16, dim)
    )


def grey(picture: Image.Image) -> NDArray[np.float32]:
    """(1, 32, 32), of mean 0 and deviation 1, so that light does not count."""
    pixels = np.asarray(picture.convert("L").resize((SIDE, SIDE)), np.float32)
    return np.asarray((pixels - pixels.mean()) / (pixels.std() + 1), np.float32)[None]


#: The control: pixel by pixel, nothing learnt.
PIXELS = Module(nn.Flatten(), preprocess=grey, dimensions=SIDE * SIDE)


def trained(draw: Draw, traits: int, *, identities: int = 300, takes: int = 8, steps: int = 200) -> Module:
    """An encoder taught by drawings of invented identities, each a vector of ``traits`` numbers in 0 to 1."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    who = rng.random((identities, traits))
    pictures = torch.from_numpy(np.stack([grey(draw(one, rng)) for one in who for _ in range(takes)]))
    model, names = network(), nn.Parameter(torch.randn(identities, 64) / 8)
    optimizer = torch.optim.AdamW([*model.parameters(), names], 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.from_numpy(rng.integers(0, len(pictures), 96))
        loss = margin_loss(model(pictures[batch]), names, batch // takes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Module(model.eval(), preprocess=grey, dimensions=64)


def margin_loss(vectors: Any, names: Any, labels: Any, scale: float = 16, margin: float = 0.2) -> Any:
    """Cross entropy of the cosines to the names, where the true one must lead by a margin."""
    cosines = nn.functional.normalize(vectors) @ nn.functional.normalize(names).T
    cosines = cosines - margin * nn.functional.one_hot(labels, len(names))
    return nn.functional.cross_entropy(scale * cosines, labels)
