"""DeepSpeaker's residual network: Li et al. 2017, table 1 (https://arxiv.org/abs/1705.02304)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from embeddb.encoders.speaker.filterbanks import BANKS, valid
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn

CLIP: Final = 20.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the network; the default is the paper's, with 24 million parameters.

    ``channels``: of each stage; a stage halves time and frequency. ``blocks``: residual blocks a stage.
    ``dim``: of the embedding.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 3
    dim: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or len(self.channels) > 6 or min(*self.channels, self.blocks, self.dim) < 1:
            raise EncoderError(f"a speaker network has 1 to 6 stages, and positive sizes: {self}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Shape:
        """The shape of ``to_dict``."""
        try:
            return cls(**values)
        except TypeError as error:
            raise EncoderError(f"this is no shape of a speaker network: {dict(values)!r}") from error


class ResCNN:
    """Stages of a 5×5 convolution with stride 2 and residual blocks; mean over time; affine; length 1.

    What lies beyond an utterance's own frames is set to zero after every layer, which is what the convolutions
    see beyond the end of an utterance alone: a padded batch gives each the vector that it has alone.
    """

    def __init__(self, shape: Shape) -> None:
        from torch import nn

        layers: dict[str, nn.Module] = {}
        before, banks = 1, BANKS
        for stage, channels in enumerate(shape.channels):
            _add(layers, f"stage{stage}", nn.Conv2d(before, channels, 5, stride=2, padding=2, bias=False))
            for block in range(shape.blocks):
                for half in ("a", "b"):
                    name = f"stage{stage}_block{block}{half}"
                    _add(layers, name, nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            before, banks = channels, (banks + 1) // 2
        self.shape = shape
        self.affine = nn.Linear(before * banks, shape.dim)
        self.layers = nn.ModuleDict({**layers, "affine": self.affine})

    def __call__(self, banks: Tensor, frames: Tensor) -> Tensor:
        """Vectors (batch, dim) of length 1 from normalised filterbanks (batch, frames, 64)."""
        from torch.nn.functional import normalize

        return normalize(self.project(banks, frames), dim=1)

    def project(self, banks: Tensor, frames: Tensor) -> Tensor:
        """The same before they are brought to length 1: what the affine layer gives."""
        x = banks[:, None]
        for stage in range(len(self.shape.channels)):
            frames = (frames + 1) // 2
            mask = valid(frames, (x.shape[2] + 1) // 2)[:, None, :, None]
            x = self._convolve(f"stage{stage}", x).clamp(0, CLIP) * mask
            for block in range(self.shape.blocks):
                name = f"stage{stage}_block{block}"
                inner = self._convolve(f"{name}a", x).clamp(0, CLIP) * mask
                x = (self._convolve(f"{name}b", inner) + x).clamp(0, CLIP) * mask
        mean = x.sum(2) / frames[:, None, None]
        projected: Tensor = self.affine(mean.flatten(1))
        return projected

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        convolved: Tensor = self.layers[f"{name}_norm"](self.layers[name](x))
        return convolved


def _add(layers: dict[str, nn.Module], name: str, convolution: nn.Conv2d) -> None:
    from torch import nn

    layers[name] = convolution
    layers[f"{name}_norm"] = nn.BatchNorm2d(convolution.out_channels)
