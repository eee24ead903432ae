"""``CLIP``: texts and images in one space, by CLIP, SigLIP and their kin."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import numpy as np

from embeddb.encoders import pretrained, sentence_files
from embeddb.encoders.memo import Memo
from embeddb.encoders.pictures import is_picture, pictures
from embeddb.encoders.pretrained import DType, Pretrained
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import require
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

Documents = Literal["image", "text"]


@dataclass(frozen=True, repr=False)
class CLIP(Pretrained):
    """Images that text finds, and texts that images find (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    ``model``: a folder, or a name on the Hugging Face hub ("openai/clip-vit-base-patch32",
    "google/siglip-base-patch16-224"); code that comes with a model is never run. ``documents``: what the rows hold,
    "image" or "text"; a query may be either: a str is text, and only ever text. ``prompt``: put before every text
    ("a photo of "). Other settings as for ``Transformer``. Vectors have length 1 unless ``normalize`` is False.
    """

    model: str
    documents: Documents = "image"
    prompt: str = ""
    dtype: DType = "float32"
    device: str | None = None
    batch_size: int = 32
    normalize: bool = True
    revision: str | None = None
    local_files_only: bool = False

    type: ClassVar[str] = "clip"
    query_modalities: ClassVar[tuple[Modality, ...]] = ("image", "text")

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        if self.documents not in get_args(Documents) or self.dtype not in get_args(DType) or self.batch_size < 1:
            raise EncoderError(
                f"{self!r}: documents is one of {', '.join(get_args(Documents))}, dtype one of "
                f"{', '.join(get_args(DType))}, batch_size at least 1"
            )

    @property
    def modality(self) -> Modality:
        return self.documents

    @property
    def inputs_per_call(self) -> int:
        """For ``embed_documents``: decoded images are large."""
        return 2 * self.batch_size

    @property
    def dim(self) -> int:
        config = self._model_config()
        found = config.get("projection_dim") or (config.get("vision_config") or {}).get("hidden_size")
        if not isinstance(found, int):
            raise EncoderError(f"{self!r}: its configuration tells no space of texts and images")
        return found

    @property
    def fingerprint(self) -> str:
        """Of the weights' and processors' content and every setting that changes vectors; reads, does not load."""
        settings = [self.documents, self.prompt, self.dtype, self.normalize]
        parts = ["clip", 1, sentence_files.digest(self._folder(), "torch"), *settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32, of images or, with ``documents="text"``, of texts."""
        return self._encode(inputs, [self.documents] * len(inputs))

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        """The same of texts (str) and images, mixed as they come."""
        return self._encode(inputs, ["text" if isinstance(value, str) else "image" for value in inputs])

    def _encode(self, inputs: Sequence[Any], kinds: Sequence[Documents]) -> Vectors:
        import torch

        if not inputs:
            return np.empty((0, self.dim), np.float32)
        for position, (value, kind) in enumerate(zip(inputs, kinds, strict=True)):
            if not (isinstance(value, str) if kind == "text" else is_picture(value)):
                raise EncoderError(f"input {position} is {type(value).__name__}, not {kind}", position=position)
        folder = self._folder()
        key = (str(folder.resolve()), self.device, self.dtype)
        make = partial(_load, folder, self.device, self.dtype)
        loaded = _models.get(key, lambda: pretrained.load(self, folder, make))
        vectors = np.empty((len(inputs), self.dim), np.float32)
        for kind in get_args(Documents):
            rows = [row for row in range(len(inputs)) if kinds[row] == kind]
            for start in range(0, len(rows), self.batch_size):
                some = rows[start : start + self.batch_size]
                values = [inputs[row] for row in some]
                with torch.inference_mode():
                    if kind == "text":
                        found = loaded.texts([self.prompt + text for text in values])
                    else:
                        found = loaded.images(pictures(values))
                    if self.normalize:
                        found = torch.nn.functional.normalize(found, dim=1)
                vectors[some] = found.cpu().numpy()
        return vectors


@dataclass(frozen=True)
class _Loaded:
    model: Any
    tokenizer: Any
    processor: Any
    #: Tokens of a text that are read.
    limit: int
    #: A tokeniser is told where to cut and pad, and so serves one thread at a time.
    turn: threading.Lock = field(default_factory=threading.Lock)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors (batch, dim) of texts."""
        # SigLIP was trained on texts padded to one length, and reads the padding; CLIP looks back only.
        padding = "max_length" if self.model.config.model_type.startswith("siglip") else "longest"
        with self.turn:
            tokens = self.tokenizer(
                list(texts),
                truncation=True,
                max_length=self.limit,
                padding=padding,
                padding_side="right",
                return_tensors="pt",
            )
        given = {
            name: tokens[name].to(self.model.device) for name in self.tokenizer.model_input_names if name in tokens
        }
        return _features(self.model.get_text_features(**given))

    def images(self, images: Sequence[Any]) -> Tensor:
        """Vectors (batch, dim) of RGB images."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return _features(self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)))


_models: Final[Memo[tuple[str, str | None, DType], _Loaded]] = Memo()


def _features(output: Any) -> Tensor:
    """The projected vectors: transformers 5 wraps them."""
    found: Tensor = getattr(output, "pooler_output", output)
    return found.float()


def _load(folder: Path, device: str | None, dtype: DType) -> _Loaded:
    transformers = require("transformers", "image", "CLIP")
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    model = pretrained.place(transformers.AutoModel.from_pretrained(str(folder), **settings), device, dtype)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise EncoderError(f"{folder} holds a {model.config.model_type} model, which has no space of texts and images")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **settings)
    limit = min(tokenizer.model_max_length, model.config.get_text_config().max_position_embeddings)
    return _Loaded(model, tokenizer, pretrained.image_processor(folder), limit)
