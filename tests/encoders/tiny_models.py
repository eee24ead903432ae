"""Text models with random weights, small enough to make in a test."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
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

#: What tokenisers are trained on.
TEXTS = [
    "a cat sat on the mat",
    "dogs",
    "the quick brown fox jumps over the lazy dog, and then it sleeps for the whole of the long afternoon",
    "Zürich, 東京 and naïve café",
    "a cat",
]
UNKNOWN = "<unk>"
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


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


def save_transformer(folder: Path, family: str, side: str) -> None:
    """A model with random weights, and a tokeniser trained for it; GPT-2 and Llama come without a token for padding."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    torch.manual_seed(3)
    byte_level = family in ("roberta", "gpt2", "llama")
    special = ["<s>", "<pad>", "</s>", UNKNOWN]
    tokenizer = Tokenizer(models.BPE() if byte_level else models.WordPiece(unk_token=UNKNOWN))
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if family in ("bert", "roberta"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    padding = {} if family in ("gpt2", "llama") else {"pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side=side, truncation_side="left", unk_token=UNKNOWN, **padding
    ).save_pretrained(folder)
    words = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 1}
    configs: dict[str, Callable[[], Any]] = {
        "bert": lambda: transformers.BertConfig(max_position_embeddings=64, **words, **SHAPE),
        "roberta": lambda: transformers.RobertaConfig(max_position_embeddings=66, **words, **SHAPE),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=words["vocab_size"], n_positions=64, n_embd=32, n_layer=3, n_head=4
        ),
        "llama": lambda: transformers.LlamaConfig(max_position_embeddings=64, vocab_size=words["vocab_size"], **SHAPE),
        "xlnet": lambda: transformers.XLNetConfig(d_model=32, n_layer=3, n_head=4, d_inner=64, **words),
        "t5": lambda: transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, **words),
    }
    model = transformers.AutoModel.from_config(configs[family]())
    with torch.no_grad():
        # As initialised, attention hardly looks anywhere, and a wrong mask would hardly be seen.
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.dim() > 1 else 1.0))
    model.save_pretrained(folder)


def save_vision(folder: Path, family: str) -> None:
    """A ResNet or a ViT of transformers."""
    import torch
    import transformers
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = {
        "resnet": lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1], layer_type="basic"
        ),
        "vit": lambda: transformers.ViTConfig(image_size=32, patch_size=8, intermediate_size=32, **shape),
    }[family]()
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def write_json(file: Path, **changes: Any) -> None:
    """Change some keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
