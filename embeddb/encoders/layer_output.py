"""What a layer of a PyTorch module gave, as one vector an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from embeddb.encoders.pooling import pool
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: As ``Pooling``; ``flatten`` keeps every value, for inputs that are all of one size.
ModulePooling = Literal["mean", "cls", "last", "max", "weighted", "flatten"]
#: How a module takes sequences of several lengths. ``equal``: it gets those of one length at a time; ``packed``: as one
#: PackedSequence, batch first; ``argument``: padded behind, (batch, steps, …), and as a second argument the lengths.
Lengths = Literal["equal", "packed", "argument"]

#: Layers that change no dimension.
_SAME_WIDTH: Final = ("ReLU", "GELU", "Tanh", "Dropout", "Identity", "Flatten", "MaxPool", "AvgPool", "AdaptiveAvgPool")


def vectors_of(output: Any, layer: nn.Module, pooling: ModulePooling, lengths: Sequence[int] | None) -> Tensor:
    """Vectors (batch, dim), float32, of a layer's output.

    The output may be a tensor, a PackedSequence, or a tuple or mapping that begins with one: (batch, dim) is taken as
    it is; (batch, steps, dim) is pooled over the steps that are there, and (batch, channels, …) of a convolution over
    all places. The last state of a network that reads in both directions is, for the direction that
    reads backwards, its state at the first step. Raises EncoderError for anything else.
    """
    import torch

    state, lengths = _state(output, layer, lengths)
    if not torch.is_tensor(state) or state.dim() < 2 or not state.is_floating_point():
        found = f"shape {tuple(state.shape)}" if torch.is_tensor(state) else type(state).__name__
        raise EncoderError(f"the layer {type(layer).__name__} gives {found}, not a vector for each input")
    if pooling == "flatten":
        return state.flatten(1).float()
    if state.dim() == 2:
        return state.float()
    if state.dim() > 3 or type(layer).__name__ in ("Conv1d", "BatchNorm1d", "MaxPool1d", "AvgPool1d"):
        if pooling not in ("mean", "max"):
            raise EncoderError(f"channels have no order of places: pool them by mean, max or flatten, not {pooling!r}")
        places = state.flatten(2).transpose(1, 2)
        return pool(places, torch.ones(places.shape[:2]), pooling)
    steps = torch.full((len(state),), state.shape[1]) if lengths is None else torch.as_tensor(lengths)
    mask = torch.arange(state.shape[1])[None] < steps[:, None]
    pooled = pool(state, mask.to(state.device), pooling)
    if pooling == "last" and getattr(layer, "bidirectional", False):
        half = state.shape[2] // 2
        pooled = torch.cat([pooled[:, :half], state[:, 0, half:].float()], dim=1)
    return pooled


def _state(output: Any, layer: nn.Module, lengths: Sequence[int] | None) -> tuple[Any, Any]:
    from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

    if isinstance(output, PackedSequence):
        return pad_packed_sequence(output, batch_first=True)
    if isinstance(output, tuple | list) and output:
        return _state(output[0], layer, lengths)
    if hasattr(output, "keys") and len(output):
        return _state(next(iter(output.values())), layer, lengths)
    is_transposed = getattr(layer, "batch_first", None) is False and getattr(output, "ndim", 0) == 3
    return (output.transpose(0, 1) if is_transposed else output), lengths


def width(layer: nn.Module) -> int | None:
    """Dimensions of what a layer gives, pooled, where its kind tells; else None."""
    from torch import nn

    if isinstance(layer, nn.RNNBase):
        return int((layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1))
    if isinstance(layer, nn.Sequential):
        parts = (part for part in reversed(layer) if not type(part).__name__.startswith(_SAME_WIDTH))
        return next((width(part) for part in parts), None)
    for attribute in ("out_features", "out_channels", "num_features", "embedding_dim"):
        if isinstance(found := getattr(layer, attribute, None), int):
            return found
    shape = getattr(layer, "normalized_shape", None)
    return int(shape[-1]) if shape else None
