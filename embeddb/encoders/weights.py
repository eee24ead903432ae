"""Weights from files that cannot run code: safetensors, or torch's own format read with ``weights_only``."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embeddb.encoders.settings import require
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of one that ``torch.save`` wrote of a state dict, by name.

    A dictionary with a ``state_dict`` in it, as training scripts write, gives that. Raises EncoderError for a
    file that is damaged, or holds anything but tensors.
    """
    import torch

    remedy = "save it with safetensors.torch.save_file(module.state_dict(), file)"
    if not file.is_file():
        raise EncoderError(f"there are no weights {file}")
    try:
        if file.suffix == ".safetensors":
            loaded: Any = require("safetensors.torch", "text", "Module").load_file(file)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"{file} holds more than tensors, which could run code, and is not loaded: {remedy}"
        ) from error
    except Exception as error:
        raise EncoderError(f"{file} cannot be read as weights ({error}): {remedy}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(torch.is_tensor(value) for value in loaded.values()):
        raise EncoderError(f"{file} is no state dict, names with tensors: {remedy}")
    return {str(name): tensor for name, tensor in loaded.items()}


def put_weights(module: nn.Module, file: Path) -> None:
    """Load a file into a module. Raises EncoderError where a tensor is missing, too many or of another shape."""
    try:
        module.load_state_dict(load_weights(file))
    except RuntimeError as error:
        raise EncoderError(f"{file} does not fit {type(module).__name__}: {error}") from error


def digest(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, types, shapes and values."""
    import torch

    hashed = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
