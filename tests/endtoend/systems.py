"""A small model of every kind of encoder, and something for it to embed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import nn

from embeddb import (
    CLIP,
    DeepSpeaker,
    Hashing,
    Module,
    OpenAI,
    SentenceTransformer,
    Transformer,
    Vision,
    WordVectors,
    XVector,
)
from embeddb.encoders import Encoder
from embeddb.encoders.reduced import Projection, Reduced, write
from embeddb.train.words import convert
from tests.audio.tiny_speaker import save_random, save_wavlm
from tests.encoders import modules
from tests.encoders.tiny_models import save_bert, save_clip, save_sentence_bert, save_transformer, save_vision

Kind = Literal["text", "image", "audio"]

TEXTS = (
    "the cat sat on the mat",
    "a dog on a mat",
    "the dog sat",
    "a cat a dog",
    "on the mat the cat",
    "mat the dog a",
)
WORDS = sorted({word for text in TEXTS for word in text.split()})


class System(NamedTuple):
    """``make``: the encoder, out of an empty folder."""

    kind: Kind
    make: Callable[[Path], Encoder]


def _word2vec(folder: Path) -> Encoder:
    from gensim.models import Word2Vec

    model = Word2Vec([text.split() for text in TEXTS] * 20, vector_size=12, min_count=1, seed=1, workers=1)
    model.wv.save_word2vec_format(str(folder / "words.bin"), binary=True)
    return WordVectors(str(folder / "words.bin"))


def _keyed_vectors(folder: Path) -> Encoder:
    from gensim.models import Word2Vec

    model = Word2Vec([text.split() for text in TEXTS] * 20, vector_size=12, min_count=1, seed=2, workers=1)
    convert(model.wv, folder / "words")  # gensim's own file is a pickle, which no worker would load
    return WordVectors(str(folder / "words"))


def _fasttext(folder: Path) -> Encoder:
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    model = FastText([text.split() for text in TEXTS] * 20, vector_size=12, min_count=1, seed=1, workers=1, bucket=500)
    save_facebook_model(model, str(folder / "words.bin"))
    return WordVectors(str(folder / "words.bin"))


def _glove(folder: Path) -> Encoder:
    rng = np.random.default_rng(4)
    lines = (f"{word} {' '.join(f'{value:.6f}' for value in rng.normal(size=12))}" for word in [*WORDS, ". . ."])
    (folder / "glove.txt").write_text("\n".join(lines) + "\n")
    return WordVectors(str(folder / "glove.txt"))


def _transformer(family: str, side: str = "right", **settings: Any) -> Callable[[Path], Encoder]:
    def make(folder: Path) -> Encoder:
        save_transformer(folder, family, side)
        return Transformer(str(folder), **settings)

    return make


def _sentence_transformer(folder: Path) -> Encoder:
    save_bert(folder / "bert")
    save_sentence_bert(folder / "model", folder / "bert")
    return SentenceTransformer(str(folder / "model"), local_files_only=True)


def _clip(documents: Literal["image", "text"]) -> Callable[[Path], Encoder]:
    def make(folder: Path) -> Encoder:
        save_clip(folder)
        return CLIP(str(folder / "bare"), documents=documents)

    return make


def _vision(family: str) -> Callable[[Path], Encoder]:
    def make(folder: Path) -> Encoder:
        save_vision(folder, family)
        return Vision(str(folder), layer=1)

    return make


def _reduced(folder: Path) -> Encoder:
    encoder = Hashing(dim=64)
    rows = encoder.encode_documents(TEXTS)
    _, _, components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    write(folder / "pca", Projection(rows.mean(0), components[:5]), {"fingerprint": encoder.fingerprint})
    return Reduced(encoder, str(folder / "pca"))


def _deep_speaker(folder: Path) -> Encoder:
    save_random(folder / "speaker")
    return DeepSpeaker(str(folder / "speaker"))


def _xvector(folder: Path) -> Encoder:
    save_wavlm(folder)
    return XVector(str(folder))


def letters(text: str) -> Any:
    """A text as a sequence of four numbers a letter, for recurrent networks."""
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.float32)
    return np.stack([np.sin(codes), np.cos(codes), codes / 128, np.ones_like(codes)], axis=1)


def transformer_layers() -> Any:
    """A network with attention in its middle."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def _network(**settings: Any) -> Callable[[Path], Encoder]:
    def make(folder: Path) -> Encoder:
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(6)
        save_file(settings["module"](**(settings.get("arguments") or {})).state_dict(), folder / "weights.safetensors")
        return Module(weights=str(folder / "weights.safetensors"), **settings)

    return make


_ON_LETTERS: dict[str, Any] = {"preprocess": letters, "modality": "text"}


def _recurrent(kind: str, both: bool = False, **settings: Any) -> Callable[[Path], Encoder]:
    arguments = {"kind": kind, "both": both}
    return _network(
        module=modules.Reader, arguments=arguments, layer="rnn", lengths="argument", **_ON_LETTERS, **settings
    )


SYSTEMS: dict[str, System] = {
    "Hashing": System("text", lambda folder: Hashing(dim=24)),
    "Word2Vec": System("text", _word2vec),
    "KeyedVectors": System("text", _keyed_vectors),
    "FastText": System("text", _fasttext),
    "GloVe": System("text", _glove),
    "sentence-transformers": System("text", _sentence_transformer),
    "BERT, cls": System("text", _transformer("bert", pooling="cls")),
    "BERT, middle layer": System("text", _transformer("bert", layer=2)),
    "RoBERTa, mean": System("text", _transformer("roberta")),
    "GPT-2, last": System("text", _transformer("gpt2", "left", pooling="last")),
    "Llama, weighted": System("text", _transformer("llama", "left", pooling="weighted")),
    "T5, max": System("text", _transformer("t5", pooling="max")),
    "LSTM": System("text", _recurrent("LSTM")),
    "GRU, last": System("text", _recurrent("GRU", pooling="last")),
    "RNN, both ways": System("text", _recurrent("RNN", both=True)),
    "attention's middle layer": System(
        "text", _network(module=transformer_layers, layer="layers.0", dimensions=4, **_ON_LETTERS)
    ),
    "Reduced": System("text", _reduced),
    "CLIP, texts": System("text", _clip("text")),
    "CLIP, images": System("image", _clip("image")),
    "ResNet": System("image", _vision("resnet")),
    "ViT": System("image", _vision("vit")),
    "CNN": System("image", _network(module=modules.convolutions, layer="embedding", preprocess=modules.grey_picture)),
    "DeepSpeaker": System("audio", _deep_speaker),
    "XVector": System("audio", _xvector),
}


def remote(url: str) -> System:
    """An OpenAI-compatible server."""
    return System("text", lambda folder: OpenAI("letters", base_url=url, dim=4))
