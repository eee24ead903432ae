"""Loading models of transformers: from files on this machine or the hub, one at a time, and never their code."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from embeddb.encoders import sentence_files
from embeddb.encoders.settings import Settings, require
from embeddb.errors import EncoderError, MissingExtra

T = TypeVar("T")

#: "auto" is bfloat16 or float16 where the device computes in them, else float32.
DType = Literal["float32", "bfloat16", "float16", "auto"]

_loading: Final = threading.Lock()


class Pretrained(Settings):
    """A base for frozen dataclasses of a model of transformers, by the folder that it is in or its name on the hub."""

    model: str
    revision: str | None
    local_files_only: bool

    def _folder(self, *, only_configuration: bool = False) -> Path:
        """Where the model is; it is fetched from the hub where it is not on this machine."""
        folder = sentence_files.find(self.model, self.revision)
        if folder is not None:
            return folder
        if self.local_files_only:
            raise sentence_files.not_found(self.model, self.revision)
        return sentence_files.download(self.model, self.revision, "torch", only_configuration=only_configuration)

    def _model_config(self) -> dict[str, Any]:
        """Its ``config.json``."""
        return read_config(self._folder(only_configuration=True))


def read_config(folder: Path) -> dict[str, Any]:
    """The model's ``config.json``. Raises EncoderError where there is none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder} is no model of transformers: its config.json cannot be read: {error}") from error
    return dict(config)


def width(config: Mapping[str, Any]) -> int:
    """Dimensions of a text model's states, by its configuration."""
    for part in (config, config.get("text_config") or {}):
        for key in ("hidden_size", "n_embd", "d_model", "dim"):
            if isinstance(part.get(key), int):
                return int(part[key])
    kind = config.get("model_type")
    raise EncoderError(f"the configuration of this {kind!r} model does not tell its width: use Module(…, dimensions=…)")


def load(encoder: object, folder: Path, make: Callable[[], T]) -> T:
    """What ``make`` loads; its errors name the encoder. One at a time: transformers sets process-wide state."""
    with _loading:
        try:
            with quiet():
                return make()
        except ImportError as error:
            raise MissingExtra(f"{encoder!r} needs a package that is not installed: {error}") from error
        except EncoderError:
            raise
        except Exception as error:
            raise EncoderError(f"{encoder!r} cannot be loaded from {folder}: {error}") from error


def image_processor(folder: Path) -> Any:
    """What makes a model's input of images, by Pillow: torchvision is not needed."""
    transformers = require("transformers", "image", "An encoder of images")
    by_pillow: dict[str, Any] = {"backend": "pil"} if transformers.__version__ >= "5" else {"use_fast": False}
    return transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, **by_pillow)


def place(model: Any, device: str | None, dtype: DType) -> Any:
    """The model, ready to encode, on its device and in its numbers."""
    import torch

    device = device or best_device()
    if dtype == "auto":
        dtype = _best_dtype(device)
    return model.to(device=device, dtype=getattr(torch, dtype)).eval()


def best_device() -> str:
    """An accelerator if torch has one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: str) -> DType:
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "float16" if device.startswith("mps") else "float32"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and advice from the user while a model is loaded."""
    transformers_logging = require("transformers.utils.logging", "text", "This encoder")
    had_bars = transformers_logging.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in ("transformers", "sentence_transformers")}
    transformers_logging.disable_progress_bar()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
