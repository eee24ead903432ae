"""What a speaker network hears: log mel filterbanks, each utterance brought to zero mean and unit variance.

Li et al. 2017, "Deep Speaker: an End-to-End Neural Speaker Embedding System", section 3.1
(https://arxiv.org/abs/1705.02304): 64 banks of 25 ms every 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

RATE: Final = 16_000
BANKS: Final = 64
WINDOW: Final = 400  # 25 ms
HOP: Final = 160  # 10 ms
# Wider than the window, or the lowest of 64 banks would fall between two bins of the spectrum.
FFT: Final = 1024
FLOOR: Final = 1e-5


def pad(sounds: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Sounds of several lengths as one tensor (batch, samples) with zeros behind, and their lengths (batch,)."""
    import torch

    lengths = torch.tensor([len(sound) for sound in sounds])
    batch = torch.zeros(len(sounds), int(lengths.max()))
    for row, sound in enumerate(sounds):
        batch[row, : len(sound)] = torch.from_numpy(np.ascontiguousarray(sound))
    return batch, lengths


def log_filterbanks(sounds: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log energies (batch, frames, 64) of sounds (batch, samples), and how many frames of each are its own.

    Each sound is first brought to an RMS of 1, so that its loudness does not matter; frames beyond a sound's own
    are garbage. Sounds are at 16 kHz and at least 25 ms long.
    """
    import torch

    power = sounds.square().sum(1, keepdim=True) / lengths[:, None]
    sounds = sounds * power.clamp_min(1e-12).rsqrt()
    frames = sounds.unfold(1, WINDOW, HOP) * torch.hamming_window(WINDOW, periodic=False)
    spectrum = torch.fft.rfft(frames, FFT).abs().square()
    energies = spectrum @ torch.from_numpy(_mel_filters())
    banks: Tensor = (energies / WINDOW + FLOOR).log()
    return banks, 1 + (lengths - WINDOW) // HOP


def normalise(banks: Tensor, frames: Tensor) -> Tensor:
    """Zero mean and unit variance over all banks of the utterance's own frames; zeros beyond them.

    One mean for all banks, not one each: the shape of the mean spectrum is a good part of what makes a voice.
    """
    mask = valid(frames, banks.shape[1])[:, :, None]
    count = (frames * banks.shape[2])[:, None, None]
    mean = (banks * mask).sum((1, 2), keepdim=True) / count
    centred = (banks - mean) * mask
    deviation = (centred.square().sum((1, 2), keepdim=True) / count).sqrt()
    normalised: Tensor = centred / deviation.clamp_min(1e-3)
    return normalised


def valid(counts: Tensor, size: int) -> Tensor:
    """A mask (batch, size): 1 where a place is among an utterance's first ``counts``."""
    import torch

    return (torch.arange(size) < counts[:, None]).float()


@lru_cache(maxsize=1)
def _mel_filters() -> NDArray[np.float32]:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=BANKS,
        min_frequency=20.0,
        max_frequency=RATE / 2,
        sampling_rate=RATE,
        mel_scale="htk",
    )
    return np.asarray(filters, np.float32)
