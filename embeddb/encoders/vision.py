"""``Vision``: images by any layer of a vision model of transformers: ResNet, ViT, DINOv2, ConvNeXt, Swin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import numpy as np

from embeddb.encoders import layer_output, pretrained, sentence_files
from embeddb.encoders.memo import Memo
from embeddb.encoders.pictures import pictures
from embeddb.encoders.pretrained import DType, Pretrained
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import require
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

VisionPooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True, repr=False)
class Vision(Pretrained):
    """Images that look alike, by a model that was trained on images alone; queries are images too.

    ``model``: a folder, or a name on the Hugging Face hub ("microsoft/resnet-50", "facebook/dinov2-base").
    ``layer``: 0 for the embedding of the pixels, 1 for the first block or stage and so on, or counted from the end;
    of the last one the states after the model's last normalisation are taken. A middle layer is often the better
    one for what the model was not trained on. ``pooling``: mean or max over all places, or cls, the first
    position, which models with a class token were trained on. Other settings as for ``Transformer``.
    """

    model: str
    layer: int = -1
    pooling: VisionPooling = "mean"
    dtype: DType = "float32"
    device: str | None = None
    batch_size: int = 32
    normalize: bool = True
    revision: str | None = None
    local_files_only: bool = False

    type: ClassVar[str] = "vision"
    modality: ClassVar[Modality] = "image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        if self.pooling not in get_args(VisionPooling) or self.dtype not in get_args(DType) or self.batch_size < 1:
            raise EncoderError(
                f"{self!r}: pooling is one of {', '.join(get_args(VisionPooling))}, dtype one of "
                f"{', '.join(get_args(DType))}, batch_size at least 1"
            )

    @property
    def inputs_per_call(self) -> int:
        """For ``embed_documents``: decoded images are large."""
        return 2 * self.batch_size

    @property
    def dim(self) -> int:
        config = self._model_config()
        config = config.get("vision_config") or config
        stages: list[int] | None = config.get("hidden_sizes")
        if stages is None:
            return pretrained.width(config)
        widths = [config.get("embedding_size", stages[0]), *stages]
        if not -len(widths) <= self.layer < len(widths):
            raise EncoderError(f"{self!r}: the model has layers {-len(widths)} to {len(widths) - 1}")
        return int(widths[self.layer])

    @property
    def fingerprint(self) -> str:
        """Of the weights' and processor's content and every setting that changes vectors; reads, does not load."""
        settings = [self.layer, self.pooling, self.dtype, self.normalize]
        parts = ["vision", 1, sentence_files.digest(self._folder(), "torch"), *settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32, of PIL images, or of what decodes to them."""
        import torch

        folder = self._folder()
        key = (str(folder.resolve()), self.device, self.dtype)
        make = partial(_load, folder, self.device, self.dtype)
        model, processor = _models.get(key, lambda: pretrained.load(self, folder, make))
        vectors = np.empty((len(inputs), self.dim), np.float32)
        for start in range(0, len(inputs), self.batch_size):
            images = pictures(inputs[start : start + self.batch_size], first=start)
            with torch.inference_mode():
                pixels = processor(images=images, return_tensors="pt")["pixel_values"]
                output = model(pixels.to(model.device, model.dtype), output_hidden_states=True)
                found = layer_output.vectors_of(self._states(output), model, self.pooling, None)
                if self.normalize:
                    found = torch.nn.functional.normalize(found, dim=1)
            vectors[start : start + self.batch_size] = found.cpu().numpy()
        return vectors

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        """The same: an image that is asked for is an image like any other."""
        return self.encode_documents(inputs)

    def _states(self, output: Any) -> Tensor:
        states: Sequence[Tensor] = output.hidden_states
        if not -len(states) <= self.layer < len(states):
            raise EncoderError(f"{self!r}: the model has layers {-len(states)} to {len(states) - 1}")
        is_last = self.layer in (-1, len(states) - 1)
        last: Tensor = output.last_hidden_state
        return last if is_last else states[self.layer]


_models: Final[Memo[tuple[str, str | None, DType], tuple[Any, Any]]] = Memo()


def _load(folder: Path, device: str | None, dtype: DType) -> tuple[Any, Any]:
    transformers = require("transformers", "image", "Vision")
    model = transformers.AutoModel.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    model = pretrained.place(getattr(model, "vision_model", model), device, dtype)
    return model, pretrained.image_processor(folder)
