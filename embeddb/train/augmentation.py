"""What a microphone and a room do to a voice: filters and noise, drawn anew for every sound of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A random FIR filter, then white noise. (Loudness needs none: filterbanks do not hear it.)

    ``taps``: of the filter; ``colour``: the deviation of the taps after the first, which is 1; 0 leaves the sound
    as it is. ``noise_db``: the lowest and highest ratio of signal to noise; None adds none.
    """

    taps: int = 9
    colour: float = 0.3
    noise_db: tuple[float, float] | None = (8.0, 22.0)

    def __call__(self, sounds: Tensor, rng: np.random.Generator) -> Tensor:
        """Sounds (batch, samples) as another microphone might have heard them; the shape is kept."""
        import torch
        from torch.nn.functional import conv1d

        if self.colour:
            filters = rng.normal(0, self.colour, (len(sounds), 1, self.taps))
            filters[:, 0, -1] = 1
            kernel = torch.from_numpy(filters.astype(np.float32))
            sounds = conv1d(torch.nn.functional.pad(sounds[None], (self.taps - 1, 0)), kernel, groups=len(sounds))[0]
        if self.noise_db:
            ratio = torch.from_numpy(rng.uniform(*self.noise_db, (len(sounds), 1)).astype(np.float32))
            noise = torch.from_numpy(rng.standard_normal(tuple(sounds.shape), np.float32))
            power = sounds.square().mean(1, keepdim=True) / 10 ** (ratio / 10)
            sounds = sounds + noise * power.sqrt()
        return sounds
