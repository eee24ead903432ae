"""Modules and functions that the tests name as "tests.encoders.modules:…", as an application's own would be."""

from __future__ import annotations

from os import getcwd as imported_from_elsewhere
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra embeddb[text]")
nn = torch.nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["imported_from_elsewhere"]


def convolutions(classes: int = 7) -> Any:
    """For images (1, 16, 16): ``0`` to ``8`` are the trunk, ``embedding`` the middle layer, ``head`` the classes."""
    parts = [
        ("0", nn.Conv2d(1, 16, 3, padding=1)),
        ("1", nn.BatchNorm2d(16)),
        ("2", nn.ReLU()),
        ("3", nn.MaxPool2d(2)),
        ("4", nn.Conv2d(16, 32, 3, padding=1)),
        ("5", nn.BatchNorm2d(32)),
        ("6", nn.ReLU()),
        ("7", nn.MaxPool2d(2)),
        ("8", nn.Conv2d(32, 64, 3, padding=1)),
        ("9", nn.ReLU()),
        ("10", nn.AdaptiveMaxPool2d(2)),
        ("11", nn.Flatten()),
        ("embedding", nn.Linear(256, 64)),
        ("relu", nn.ReLU()),
        ("dropout", nn.Dropout(0.3)),
        ("head", nn.Linear(64, classes)),
    ]
    module = nn.Sequential()
    for name, part in parts:
        module.add_module(name, part)
    return module


def grey(value: Any) -> Any:
    """(1, height, width) of an array of (height, width)."""
    return np.asarray(value, np.float32)[None]


def grey_picture(image: Any) -> Any:
    """(1, height, width) within 0 and 1 of a PIL image."""
    return grey(np.asarray(image.convert("L"), np.float32) / 255)


class Reader(nn.Module):  # type: ignore[misc, name-defined]  # torch is not imported where it is not installed
    """A recurrent network that packs by the lengths that it is told, as tutorials do."""

    def __init__(self, kind: str = "LSTM", both: bool = False, layers: int = 1, batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.batch_first = batch_first
        self.rnn = getattr(nn, kind)(4, 6, layers, bidirectional=both, batch_first=batch_first)
        self.head = nn.Linear(12 if both else 6, 3)
        self.unused = nn.Linear(1, 1)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        sequences = sequences if self.batch_first else sequences.transpose(0, 1)
        packed = nn.utils.rnn.pack_padded_sequence(
            sequences, lengths, batch_first=self.batch_first, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        head: Tensor = self.head(states)
        return head


class StepsFirst(nn.Module):  # type: ignore[misc, name-defined]  # as above
    """A recurrent layer that is not batch_first, in a module that is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.rnn = nn.GRU(4, 6)

    def forward(self, sequences: Tensor) -> Tensor:
        states: Tensor = self.rnn(sequences.transpose(0, 1))[0].transpose(0, 1)
        return states


def lstm(both: bool = False) -> Any:
    """A bare LSTM, to be given packed sequences."""
    torch.manual_seed(5)
    return nn.LSTM(4, 6, bidirectional=both, batch_first=True)


def not_a_module() -> str:
    """What no encoder can run."""
    return "nothing"
