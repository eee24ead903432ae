"""``SentenceTransformer``: any model of the sentence-transformers library, by name or folder."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np

from embeddb.encoders import pretrained, sentence_files
from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings, require
from embeddb.errors import EncoderError

Backend = Literal["torch", "onnx", "openvino"]


@dataclass(frozen=True, repr=False)
class SentenceTransformer(Settings):
    """Texts by a sentence-transformers model; see https://www.sbert.net.

    ``model``: a name on the Hugging Face hub ("all-MiniLM-L6-v2", "intfloat/e5-small-v2") or a folder. It is
    looked for as a folder, in the local Hugging Face cache, in installed packages, then on the hub; code that
    comes with a model is never run. ``query_prompt``, ``document_prompt``: text put before queries and documents;
    ``query_prompt_name``, ``document_prompt_name``: one of the model's own prompts by name; by default those that
    the model has for queries and for documents. ``truncate_dim``: keep the first so many dimensions, for models
    trained for that (Kusupati et al. 2022, "Matryoshka Representation Learning"). ``normalize``: scale vectors to
    length 1; by default only truncated ones, which otherwise lose theirs. ``device``: as in torch, by default the
    best one. ``batch_size``: texts per forward pass. ``backend``: onnx and openvino need their own packages.
    ``revision``: a branch, tag or commit on the hub. ``local_files_only``: never ask the hub.

    Equal settings are equal encoders; they share one loaded model, which every thread may use. Text beyond the
    model's longest input (256 tokens for all-MiniLM-L6-v2) is not read.
    """

    model: str
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    truncate_dim: int | None = None
    normalize: bool | None = None
    device: str | None = None
    batch_size: int = 32
    backend: Backend = "torch"
    revision: str | None = None
    local_files_only: bool = False

    type: ClassVar[str] = "sentence-transformer"
    modality: ClassVar[Modality] = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        if not self.model:
            raise EncoderError("SentenceTransformer: name a model, or the folder of one")
        if self.backend not in get_args(Backend):
            raise EncoderError(f"{self!r}: backend is one of {', '.join(get_args(Backend))}")
        if self.batch_size < 1 or (self.truncate_dim is not None and self.truncate_dim < 1):
            raise EncoderError(f"{self!r}: batch_size and truncate_dim are at least 1")
        for kind in ("query", "document"):
            if getattr(self, f"{kind}_prompt") is not None and getattr(self, f"{kind}_prompt_name") is not None:
                raise EncoderError(f"{self!r}: give {kind}_prompt or {kind}_prompt_name, not both")

    @property
    def inputs_per_call(self) -> int:
        """For ``embed_documents``: enough for a few forward passes, little enough to show progress."""
        return 8 * self.batch_size

    @property
    def dim(self) -> int:
        """Read from the model's configuration files; only an uncommon architecture is loaded to tell."""
        return _dims.get(self, self._read_dim)

    @property
    def fingerprint(self) -> str:
        """Of the weights' and tokeniser's content and every setting that changes vectors; reads, does not load."""
        folder = self._folder()
        settings = [*self._prompts(folder), self.truncate_dim, self.normalize, self.backend]
        parts = ["sentence-transformer", 1, sentence_files.digest(folder, self.backend), *settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32."""
        return self._encode(inputs, "document")

    def encode_queries(self, inputs: Sequence[str]) -> Vectors:
        """The same with the prompt, or the tower, for queries."""
        return self._encode(inputs, "query")

    def opened(self) -> tuple[Any, str, str]:
        """The loaded model of the library, and what is put before queries and before documents."""
        ready = _ready.get(self, self._prepare)
        return ready.loaded.model, ready.query_prompt, ready.document_prompt

    def _encode(self, inputs: Sequence[str], role: Literal["query", "document"]) -> Vectors:
        if not inputs:
            return np.empty((0, self.dim), np.float32)
        ready = _ready.get(self, self._prepare)
        model = ready.loaded.model
        # A model of several modalities takes a bare string that looks like a path or URL for media, and opens it.
        texts = [{"text": text} for text in inputs] if ready.loaded.is_multimodal else list(inputs)
        with ready.loaded.turn:
            vectors = (model.encode_query if role == "query" else model.encode_document)(
                texts,
                prompt=ready.query_prompt if role == "query" else ready.document_prompt,
                batch_size=self.batch_size,
                show_progress_bar=False,
            )
        vectors = np.asarray(vectors, np.float32)[:, : self.truncate_dim]
        if self.truncate_dim is not None if self.normalize is None else self.normalize:
            # A zero vector stays one, and is refused by who asked for it.
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.divide(vectors, lengths, where=lengths > 0, out=np.zeros_like(vectors))
        return np.ascontiguousarray(vectors)

    def _prompts(self, folder: Path) -> tuple[str, str]:
        """What is put before queries and before documents: as given, by name, by the model's roles, or its default."""
        known, default = sentence_files.prompts(folder)
        for name in (self.query_prompt_name, self.document_prompt_name):
            if name is not None and name not in known:
                raise EncoderError(f"{self!r}: the model has no prompt {name!r}, only {', '.join(known) or 'none'}")

        def chosen(text: str | None, name: str | None, *roles: str) -> str:
            if text is not None:
                return text
            if name is not None:
                return known[name]
            # sentence-transformers writes empty prompts of its own for "query" and "document" into models that have
            # none, so an empty one does not stand before a filled one of the same meaning.
            here = [known[role] for role in roles if role in known]
            return next(filter(None, here), "" if here else known.get(default or "", ""))

        return (
            chosen(self.query_prompt, self.query_prompt_name, "query"),
            chosen(self.document_prompt, self.document_prompt_name, "document", "passage", "corpus"),
        )

    def _folder(self, *, only_configuration: bool = False) -> Path:
        folder = sentence_files.find(self.model, self.revision)
        if folder is not None:
            return folder
        if self.local_files_only:
            raise sentence_files.not_found(self.model, self.revision)
        return sentence_files.download(self.model, self.revision, self.backend, only_configuration=only_configuration)

    def _read_dim(self) -> int:
        dim = sentence_files.dimensions(self._folder(only_configuration=True))
        if dim is None:
            dim = self._load().model.get_embedding_dimension()
        if dim is None:
            dim = len(self._load().model.encode_document("dimensions", show_progress_bar=False))
        if self.truncate_dim is not None and self.truncate_dim > dim:
            raise EncoderError(
                f"{self!r}: the model has {dim} dimensions, so truncate_dim={self.truncate_dim} is no cut"
            )
        return self.truncate_dim or dim

    def _prepare(self) -> _Ready:
        """Once for these settings; the model itself may be there already for others."""
        loaded = self._load()
        folder = self._folder()
        whole = sentence_files.dimensions(folder) or loaded.model.get_embedding_dimension() or 0
        if self.truncate_dim is not None and self.truncate_dim < whole and not sentence_files.is_matryoshka(folder):
            warnings.warn(
                f"{self!r}: nothing in this model says that it was trained to be cut short (Matryoshka), and others "
                "lose neighbours by it: keep all dimensions with storage or index in half precision, or measure recall",
                UserWarning,
                stacklevel=2,
            )
        return _Ready(loaded, *self._prompts(folder))

    def _load(self) -> _Loaded:
        folder = self._folder()
        return _models.get((str(folder.resolve()), self.backend, self.device), lambda: _load(self, folder))


@dataclass(frozen=True)
class _Loaded:
    model: Any
    is_multimodal: bool
    #: torch runs a model for several threads at once; an OpenVINO request serves one.
    turn: AbstractContextManager[Any]


@dataclass(frozen=True)
class _Ready:
    loaded: _Loaded
    query_prompt: str
    document_prompt: str


_dims: Final[Memo[SentenceTransformer, int]] = Memo()
_ready: Final[Memo[SentenceTransformer, _Ready]] = Memo()
_models: Final[Memo[tuple[str, Backend, str | None], _Loaded]] = Memo()


def _load(encoder: SentenceTransformer, folder: Path) -> _Loaded:
    def make() -> Any:
        library = require("sentence_transformers", "text", "SentenceTransformer")
        return library.SentenceTransformer(
            str(folder), device=encoder.device, backend=encoder.backend, local_files_only=True
        )

    model = pretrained.load(encoder, folder, make)
    turn: AbstractContextManager[Any] = threading.Lock() if encoder.backend == "openvino" else nullcontext()
    return _Loaded(model, getattr(model, "modalities", ["text"]) != ["text"], turn)
