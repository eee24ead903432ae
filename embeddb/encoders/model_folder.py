"""A trained model on disk: a folder with ``config.json`` and ``model.safetensors``, and nothing that can run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.memo import Memo
from embeddb.errors import EncoderError

Tensors = Mapping[str, NDArray[Any]]
#: A folder and its weights' time and size: another model in the same place is another key.
Identity = tuple[Path, int, int]

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"

_digests: Final[Memo[Identity, str]] = Memo()


def prepare(folder: str | Path) -> Path:
    """The folder, made where there is none: an error before hours of training, not after them. Raises EncoderError."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise EncoderError(f"{path}: no model can be written there: {error.strerror}") from error
    if not writable:
        raise EncoderError(f"{path}: no model can be written there: it may not be written to")
    return path


def write(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Write a model, over an older one of the same folder if there is one. ``config["kind"]`` says what it is."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    replace(folder / WEIGHTS, save(contiguous))
    replace(folder / CONFIG, (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())


def replace(path: Path, data: bytes) -> None:
    """Put a file in its place whole: who reads meanwhile sees the old one or the new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """The configuration of a model of that kind. Raises EncoderError where there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        raise EncoderError(f"{folder} holds no trained model: it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder / CONFIG} cannot be read: {error}") from error
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise EncoderError(f"{folder} holds a model of kind {found!r}, not {kind!r}")
    return dict(config)


def read_tensors(folder: Path) -> dict[str, NDArray[Any]]:
    """The weights. Raises EncoderError where they are absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{folder / WEIGHTS} cannot be read: {error}") from error


def identity(folder: Path) -> Identity:
    """What to keep a loaded model under."""
    try:
        status = (folder / WEIGHTS).stat()
    except OSError as error:
        raise EncoderError(f"{folder} holds no trained model: {error}") from error
    return folder.resolve(), status.st_mtime_ns, status.st_size


def digest(folder: Path) -> str:
    """SHA-256 of the configuration and the weights: the same wherever the folder is."""

    def read() -> str:
        with (folder / WEIGHTS).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").digest()
        return hashlib.sha256((folder / CONFIG).read_bytes() + weights).hexdigest()

    return _digests.get(identity(folder), read)
