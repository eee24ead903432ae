"""Sentence-transformers models with random weights, small enough to make in a test."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "query",
    "passage",
    ":",
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "a",
    "b",
]


def save_bert(folder: Path) -> None:
    """A bare transformers model: one layer of BERT, 32 wide."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    shape: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **shape)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(folder)


def save_sentence_bert(
    folder: Path, bert: Path, *, pooling: Any = "mean", dense: int | None = None, prompts: dict[str, str] | None = None
) -> None:
    """The same as a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    parts: list[Any] = [modules.Transformer(str(bert)), modules.Pooling(32, pooling)]
    if dense:
        parts.append(modules.Dense(parts[-1].get_embedding_dimension(), dense))
    SentenceTransformer(modules=[*parts, modules.Normalize()], prompts=prompts, device="cpu").save(str(folder))


def save_two_towers(folder: Path, bert: Path) -> None:
    """Queries and documents by transformers of their own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    def tower(pooling: Any) -> list[Any]:
        return [modules.Transformer(str(bert)), modules.Pooling(32, pooling)]

    router = modules.Router.for_query_document(query_modules=tower("cls"), document_modules=tower("mean"))
    SentenceTransformer(modules=[router, modules.Normalize()], device="cpu").save(str(folder))


def save_clip(folder: Path) -> None:
    """A model of two modalities, text and images, in one space of 8 dimensions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor: Any = importlib.import_module("transformers").CLIPProcessor
    torch.manual_seed(7)
    vocabulary = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary += [letter + end for letter in "abcdefghijklmnopqrstuvwxyz/.:-_0123456789" for end in ("", "</w>")]
    tokenizer = CLIPTokenizer(vocab={token: place for place, token in enumerate(vocabulary)}, merges=[])
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder / "bare")
    shape: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **shape}
    vision = {"image_size": 16, "patch_size": 8, **shape}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder / "bare")
    SentenceTransformer(modules=[modules.Transformer(str(folder / "bare"))], device="cpu").save(str(folder / "clip"))


def write_json(file: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
