"""Sentence-transformers models of every family that has SQL, with random weights, small enough to make in a test."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from embeddb.encoders import SentenceTransformer

_WORDS: Final = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "mat", "a", "##s", "##ing", "b",
    "c", "d", "e", "f", "##a", "##b", "##c", "##d", "##e", "##f", ".", ",", "!", "é", "e", "中", "query",
    "passage", ":",
]  # fmt: skip
#: What the byte pairs of the tiny RoBERTa are learnt from.
_CORPUS: Final = [
    "the cat sat on the mat",
    "It's 20% off, isn't it?",
    "naïve façade über straße",
    "東京 is big 12345",
] * 5

TEXTS: Final = (
    "",
    "cat",
    "the cats sat on a mat",
    "It's a dog, isn't it? 20% off!",
    "a b c d e f " * 4,
    "naïve cats on the 東京 mat " * 6,
)
_SHAPE: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


class Models:
    """Folders of models, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encoder(
        self, family: str, *, pooling: str = "mean", normalize: bool = True, settings: dict[str, Any] | None = None,
        prompts: dict[str, str] | None = None, cased: bool = False, **changes: Any,
    ) -> SentenceTransformer:  # fmt: skip
        """A SentenceTransformer of ``family`` (bert, distilbert, roberta, mpnet), ``changes`` in its configuration."""
        name = "-".join(
            [
                family,
                pooling,
                str(normalize),
                str(cased),
                *(f"{k}={v}" for k, v in {**changes, **(prompts or {})}.items()),
            ]
        )
        folder = self.folder / name.replace("/", "").replace(" ", "")
        if not folder.exists():
            self._make(folder, family, pooling, normalize, prompts, cased, changes)
        return SentenceTransformer(str(folder), local_files_only=True, device="cpu", **(settings or {}))

    def _make(
        self,
        folder: Path,
        family: str,
        pooling: str,
        normalize: bool,
        prompts: Any,
        cased: bool,
        changes: dict[str, Any],
    ) -> None:
        import torch

        transformers = importlib.import_module("transformers")
        library = importlib.import_module("sentence_transformers")
        modules = importlib.import_module("sentence_transformers.sentence_transformer").modules
        torch.manual_seed(11)
        bare = folder.with_name(folder.name + "-bare")
        bare.mkdir()
        tokenizer = self._byte_pairs() if family == "roberta" else self._words(family, cased)
        shape = {**_SHAPE, "vocab_size": len(tokenizer), **changes}
        if family == "distilbert":
            names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                     "intermediate_size": "hidden_dim"}  # fmt: skip
            shape = {names.get(key, key): value for key, value in shape.items()}
            config, model = transformers.DistilBertConfig(**shape), transformers.DistilBertModel
        elif family == "roberta":
            shape["max_position_embeddings"] += 2
            config = transformers.RobertaConfig(**shape, pad_token_id=1, type_vocab_size=1)
            model = transformers.RobertaModel
        elif family == "mpnet":
            config, model = transformers.MPNetConfig(**shape, pad_token_id=1), transformers.MPNetModel
        else:
            config, model = transformers.BertConfig(**shape), transformers.BertModel
        made = model(config)
        for parameter in made.parameters():
            # Larger than a fresh model's, so that scores, norms and activations are not close to nothing.
            parameter.data += 0.2 * torch.randn_like(parameter)
        made.save_pretrained(bare)
        tokenizer.save_pretrained(bare)
        parts = [modules.Transformer(str(bare), max_seq_length=48), modules.Pooling(32, pooling)]
        if normalize:
            parts.append(modules.Normalize())
        library.SentenceTransformer(modules=parts, prompts=prompts, device="cpu").save(str(folder))

    def _words(self, family: str, cased: bool) -> Any:
        transformers = importlib.import_module("transformers")
        vocabulary = self.folder / "vocab.txt"
        words = list(dict.fromkeys(_WORDS))
        if family == "mpnet":
            words = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
        vocabulary.write_text("\n".join(words), encoding="utf-8")
        kind = {"mpnet": "MPNetTokenizer", "distilbert": "DistilBertTokenizer"}.get(family, "BertTokenizer")
        if not hasattr(transformers, kind):
            kind = "BertTokenizer"
        return getattr(transformers, kind)(str(vocabulary), do_lower_case=not cased)

    def _byte_pairs(self) -> Any:
        tokenizers = importlib.import_module("tokenizers")
        transformers = importlib.import_module("transformers")
        library = tokenizers.Tokenizer(tokenizers.models.BPE())
        library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = tokenizers.decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        library.train_from_iterator(_CORPUS, trainer)
        library.post_processor = tokenizers.processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=library, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
            pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        )  # fmt: skip
