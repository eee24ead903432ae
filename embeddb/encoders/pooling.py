"""From the states of a sequence to one vector, looking only at what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

#: ``mean``: of all positions; ``cls``: the first; ``last``: the last; ``max``: the largest of each dimension;
#: ``weighted``: the mean with position i weighing i, for decoders, whose later states have seen more (Muennighoff
#: 2022, "SGPT", https://arxiv.org/abs/2202.08904).
Pooling = Literal["mean", "cls", "last", "max", "weighted"]


def check_pooling(pooling: str) -> None:
    """Raise EncoderError for a pooling that there is not."""
    if pooling not in get_args(Pooling):
        raise EncoderError(f"pooling is one of {', '.join(get_args(Pooling))}, not {pooling!r}")


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Vectors (batch, dim) in float32 of states (batch, positions, dim).

    ``mask``, (batch, positions), is not zero where a position is there; those that are not may be on either side. A
    row of the batch without any position is NaN throughout.
    """
    import torch

    there = mask.bool()
    states = states.float().masked_fill(~there[:, :, None], 0)
    count = there.sum(1, keepdim=True)
    rows = torch.arange(len(states), device=states.device)
    if pooling == "mean":
        pooled = states.sum(1) / count
    elif pooling == "weighted":
        weight = there.cumsum(1) * there
        pooled = (states * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)
    elif pooling == "max":
        pooled = states.masked_fill(~there[:, :, None], -torch.inf).amax(1)
    elif pooling == "cls":
        pooled = states[rows, there.int().argmax(1)]
    else:
        pooled = states[rows, states.shape[1] - 1 - there.flip(1).int().argmax(1)]
    return pooled.masked_fill(count == 0, torch.nan)
