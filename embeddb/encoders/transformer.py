"""``Transformer``: the states of any layer of an encoder or decoder of transformers, pooled."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

import numpy as np

from embeddb.encoders import pretrained, sentence_files
from embeddb.encoders.memo import Memo
from embeddb.encoders.pooling import Pooling, check_pooling, pool
from embeddb.encoders.pretrained import DType, Pretrained
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import require
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

#: What transformers gives as a tokeniser's limit where it has none.
_UNLIMITED: Final = 10**9


@dataclass(frozen=True, repr=False)
class Transformer(Pretrained):
    """Texts by BERT, RoBERTa, GPT-2, Llama, T5's encoder and most others; see https://huggingface.co/docs/transformers.

    ``model``: a folder, or a name on the Hugging Face hub ("bert-base-uncased"); code that comes with a model is never
    run. ``layer``: whose states are pooled: 0 for the token embeddings, 1 for the first block and so on, or counted
    from the end. ``pooling``: mean, cls (the first position), last, max or weighted (see ``Pooling``); a decoder's
    first position has seen nothing, so it wants mean, weighted or last. ``dtype``: float32, bfloat16, float16 or auto.
    ``device``: as in torch, by default the best one. ``batch_size``: texts per forward pass. ``max_length``: tokens of
    a text that are read, by default as many as the model takes. ``normalize``: scale vectors to length 1.
    ``query_prompt``, ``document_prompt``: text put before queries and documents. ``revision``,
    ``local_files_only``: as for ``SentenceTransformer``.

    A batch is padded on the right and masked, whatever the tokeniser says, so that every position has the number that
    it would have alone: a text's vector does not depend on the batch. A text without a token has no embedding.
    """

    model: str
    layer: int = -1
    pooling: Pooling = "mean"
    dtype: DType = "float32"
    device: str | None = None
    batch_size: int = 32
    max_length: int | None = None
    normalize: bool = True
    query_prompt: str = ""
    document_prompt: str = ""
    revision: str | None = None
    local_files_only: bool = False

    type: ClassVar[str] = "transformer"
    modality: ClassVar[Modality] = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        check_pooling(self.pooling)
        if self.dtype not in get_args(DType):
            raise EncoderError(f"{self!r}: dtype is one of {', '.join(get_args(DType))}")
        if self.batch_size < 1 or (self.max_length is not None and self.max_length < 1):
            raise EncoderError(f"{self!r}: batch_size and max_length are at least 1")

    @property
    def inputs_per_call(self) -> int:
        """For ``embed_documents``: enough for a few forward passes, little enough to show progress."""
        return 8 * self.batch_size

    @property
    def dim(self) -> int:
        return pretrained.width(self._model_config())

    @property
    def fingerprint(self) -> str:
        """Of the weights' and tokeniser's content and every setting that changes vectors; reads, does not load."""
        settings = [self.layer, self.pooling, self.dtype, self.max_length, self.normalize]
        prompts = [self.query_prompt, self.document_prompt]
        parts = ["transformer", 1, sentence_files.digest(self._folder(), "torch"), *settings, *prompts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32; NaN throughout for a text without a token."""
        return self._encode([self.document_prompt + text for text in inputs])

    def encode_queries(self, inputs: Sequence[str]) -> Vectors:
        """The same with the prompt for queries."""
        return self._encode([self.query_prompt + text for text in inputs])

    def _encode(self, texts: Sequence[str]) -> Vectors:
        import torch

        if not texts:
            return np.empty((0, self.dim), np.float32)
        folder = self._folder()
        key = (str(folder.resolve()), self.device, self.dtype)
        loaded = _models.get(
            key, lambda: pretrained.load(self, folder, partial(_load, folder, self.device, self.dtype))
        )
        if not -loaded.layers <= self.layer < loaded.layers:
            raise EncoderError(f"{self!r}: the model has layers {-loaded.layers} to {loaded.layers - 1}")
        tokens = loaded.tokenize(texts, self.max_length)
        vectors = np.full((len(texts), loaded.width), np.nan, np.float32)
        # Of like length together, so that little is padded.
        order = sorted((row for row in range(len(texts)) if tokens[row]), key=lambda row: len(tokens[row]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            with torch.inference_mode():
                states, mask = loaded.states([tokens[row] for row in rows], self.layer)
                pooled = pool(states, mask, self.pooling)
                if self.normalize:
                    pooled = torch.nn.functional.normalize(pooled, dim=1)
            vectors[rows] = pooled.cpu().numpy()
        return vectors


@dataclass(frozen=True)
class _Loaded:
    tokenizer: Any
    model: Any
    width: int
    layers: int
    #: Tokens that the model has positions for.
    limit: int
    #: What stands where nothing is; RoBERTa numbers positions by it.
    padding: int
    #: A tokeniser is told where to cut, and so serves one thread at a time.
    turn: threading.Lock = field(default_factory=threading.Lock)

    def tokenize(self, texts: Sequence[str], longest: int | None) -> list[list[int]]:
        """Token numbers of each text, at most ``longest``; a tokeniser's own special tokens are among them."""
        limit = min(self.limit, longest or self.limit)
        with self.turn:
            encoded = self.tokenizer(list(texts), truncation=True, max_length=limit, return_attention_mask=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def states(self, tokens: Sequence[Sequence[int]], layer: int) -> tuple[Tensor, Tensor]:
        """States (batch, positions, width) after a layer, and the mask of the positions that are there."""
        import torch

        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self.padding)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return output.hidden_states[layer], mask


_models: Final[Memo[tuple[str, str | None, DType], _Loaded]] = Memo()


def _load(folder: Path, device: str | None, dtype: DType) -> _Loaded:
    transformers = require("transformers", "text", "Transformer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    # Without this a text is cut at its beginning where the tokeniser was saved for a decoder.
    tokenizer.truncation_side = "right"
    model = transformers.AutoModel.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model = pretrained.place(model, device, dtype)
    config = model.config.get_text_config()
    paddings = (config.pad_token_id, tokenizer.pad_token_id, 0)
    padding = next(number for number in paddings if isinstance(number, int) and number >= 0)
    limit = min(tokenizer.model_max_length, _positions(model, config))
    return _Loaded(tokenizer, model, config.hidden_size, config.num_hidden_layers + 1, limit, padding)


def _positions(model: Any, config: Any) -> int:
    """How many positions the model knows; RoBERTa and its kin begin to count behind the padding's number."""
    known = getattr(config, "max_position_embeddings", None) or 0
    if known < 1:  # XLNet, which has no end, says -1
        known = _UNLIMITED
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    return int(known) - (getattr(table, "padding_idx", None) or -1) - 1
