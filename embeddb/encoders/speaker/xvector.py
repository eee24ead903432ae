"""``XVector``: a voice's vector by a pretrained transformer with an x-vector head."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from embeddb.encoders import sentence_files
from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings, require
from embeddb.encoders.speaker.filterbanks import RATE
from embeddb.encoders.speaker.windowed import Samples, embed_windows
from embeddb.errors import EncoderError

#: The head looks at 15 frames at once, of 20 ms each; a shorter sound is repeated up to here.
LEAST_SECONDS: Final = 0.5
#: Sounds that go through the network together, in seconds: what bounds its memory.
BATCH_SECONDS: Final = 60.0
FILES: Final = ("config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json")


class _Loaded(NamedTuple):
    extractor: Any
    model: Any


_models: Final[Memo[tuple[str, str | None], _Loaded]] = Memo(size=4)
_digests: Final[Memo[tuple[Path, int, int], str]] = Memo()


@dataclass(frozen=True, slots=True, repr=False)
class XVector(Settings):
    """WavLM, UniSpeech-SAT, Wav2Vec2 or Data2Vec with an x-vector head, by transformers; vectors of length 1.

    ``model``: a folder, or a name on the Hugging Face hub ("microsoft/wavlm-base-plus-sv", 512 dimensions), with
    weights in safetensors; ``revision``: a branch, tag or commit there. ``window``: seconds; a longer sound is cut
    into such windows, and its vector is the mean of theirs. Only sounds of one length share a batch: padding
    would change the vectors of these models. Compare by cosine.
    """

    model: str
    window: float = 10.0
    revision: str | None = None

    type: ClassVar[str] = "x-vector"
    modality: ClassVar[Modality] = "audio"
    sample_rate: ClassVar[int] = RATE

    @property
    def dim(self) -> int:
        transformers = require("transformers", "audio", "XVector")
        config = transformers.AutoConfig.from_pretrained(str(self._folder()))
        if not hasattr(config, "xvector_output_dim"):
            raise EncoderError(f"{self!r}: a {config.model_type} model has no x-vector head")
        return int(config.xvector_output_dim)

    @property
    def fingerprint(self) -> str:
        folder = self._folder()
        hashed = hashlib.sha256(f"{self.type} 1 {self.window}".encode())
        for path in sorted(path for pattern in FILES for path in folder.glob(pattern)):
            status = path.stat()
            content = partial(_digest, path)
            hashed.update(_digests.get((path.resolve(), status.st_mtime_ns, status.st_size), content).encode())
        return hashed.hexdigest()

    def encode_documents(self, inputs: Sequence[object]) -> Vectors:
        """Vectors of shape (len(inputs), dim), of length 1, or NaN throughout for a sound of nothing."""
        loaded = _models.get((self.model, self.revision), self._load)
        return embed_windows(
            inputs,
            partial(_embed, loaded),
            int(loaded.model.config.xvector_output_dim),
            seconds=self.window,
            batch_seconds=BATCH_SECONDS,
            least_seconds=LEAST_SECONDS,
            equal_lengths=True,
        )

    def encode_queries(self, inputs: Sequence[object]) -> Vectors:
        """The same: a voice asked for is a voice like any other."""
        return self.encode_documents(inputs)

    def _folder(self) -> Path:
        """The model's folder: itself, or in the hub's cache, or else fetched, without anything that could run."""
        folder = sentence_files.find(self.model, self.revision)
        if folder is not None:
            return folder
        hub = require("huggingface_hub", "audio", "XVector")
        try:
            return Path(hub.snapshot_download(self.model, revision=self.revision, allow_patterns=list(FILES)))
        except Exception as error:
            raise EncoderError(f"{self!r}: it is no folder here, and the hub gives no such model: {error}") from error

    def _load(self) -> _Loaded:
        transformers = require("transformers", "audio", "XVector")
        folder = str(self._folder())
        try:
            model = transformers.AutoModelForAudioXVector.from_pretrained(folder, use_safetensors=True)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"{self!r} cannot be loaded: {error}. Where only pytorch_model.bin is there, convert it once, or "
                "name the revision that holds safetensors"
            ) from error
        if extractor.sampling_rate != RATE:
            raise EncoderError(f"{self!r}: it hears {extractor.sampling_rate} Hz; models of {RATE} Hz are supported")
        return _Loaded(extractor, model.eval())


def _embed(loaded: _Loaded, sounds: Sequence[Samples]) -> Vectors:
    import torch

    heard = loaded.extractor(list(sounds), sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        vectors = loaded.model(heard["input_values"]).embeddings
    return np.asarray(vectors.numpy(), np.float32)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"
