"""Word vectors on disk: a model folder whose tensors are mapped into memory, not read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders import model_folder, sif
from embeddb.encoders.memo import Memo
from embeddb.encoders.settings import require
from embeddb.encoders.subwords import Subwords
from embeddb.encoders.word_tokens import fold
from embeddb.errors import EncoderError

KIND: Final = "words"
SMOOTHING: Final = 1e-3
_TYPES: Final = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}

_loaded: Final[Memo[model_folder.Identity, Words]] = Memo(size=8)


@dataclass(frozen=True, eq=False)
class Words:
    """``words``: the vocabulary, by convention the most frequent first. ``vectors``: (words, dim), read-only.

    ``counts``: how often each was seen in training, (words,), where that is known. ``component``: what SIF takes away,
    (dim,). ``smoothing``: SIF's a. ``subwords``: FastText's n-grams.
    """

    words: Sequence[str]
    vectors: NDArray[np.float32]
    counts: NDArray[np.int64] | None = None
    component: NDArray[np.float32] | None = None
    smoothing: float = SMOOTHING
    subwords: Subwords | None = None

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where each word is, by its folded form: of "Paris" and "paris" the more frequent one."""
        places: dict[str, int] = {}
        for place, word in enumerate(self.words):
            places.setdefault(fold(word), place)
        return places

    @cached_property
    def exact_places(self) -> Mapping[str, int]:
        """Where each word is, as it is written."""
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """SIF's weight of every word, (words,); by its rank where counts are not known."""
        p = sif.zipf(len(self.words)) if self.counts is None else sif.probabilities(self.counts)
        return sif.weights(p, self.smoothing)


def write(folder: Path, words: Words) -> None:
    """Write a folder that ``load`` maps. Raises EncoderError for words twice, or vectors that do not fit."""
    if len(words.words) != len(words.vectors) or not len(words.vectors):
        raise EncoderError(f"{len(words.words)} words and {len(words.vectors)} vectors are no model")
    if len(set(words.words)) != len(words.words):
        raise EncoderError("a word is there twice: keep one of them")
    if not np.isfinite(words.vectors).all():
        raise EncoderError("a word's vector holds NaN or infinity")
    config: dict[str, Any] = {"kind": KIND, "dim": int(words.vectors.shape[1]), "words": len(words.words)}
    config["smoothing"] = words.smoothing
    # The largest first: each begins where the one before ends, so all stay aligned, and the bytes come last.
    tensors: dict[str, NDArray[Any]] = {"vectors": np.ascontiguousarray(words.vectors, np.float32)}
    if words.counts is not None:
        tensors["counts"] = np.ascontiguousarray(words.counts, np.int64)
    if words.component is not None:
        tensors["component"] = np.ascontiguousarray(words.component, np.float32)
    if words.subwords is not None:
        config["subwords"] = {"shortest": words.subwords.shortest, "longest": words.subwords.longest}
        tensors["ngrams"] = np.ascontiguousarray(words.subwords.vectors, np.float32)
    tensors["words"] = np.frombuffer(json.dumps(list(words.words), ensure_ascii=False).encode(), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    save_file = require("safetensors.numpy", "words", "WordVectors").save_file
    partial_file = folder / f"{model_folder.WEIGHTS}.{os.getpid()}.partial"
    save_file(tensors, partial_file)  # straight to the file: a vocabulary's vectors may be half of the memory
    partial_file.replace(folder / model_folder.WEIGHTS)
    model_folder.replace(folder / model_folder.CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def load(folder: Path) -> Words:
    """The words of that folder, once per process; their vectors stay on disk until they are looked up."""
    return _loaded.get(model_folder.identity(folder), partial(_load, folder))


def _load(folder: Path) -> Words:
    config = model_folder.read_config(folder, KIND)
    tensors = map_tensors(folder / model_folder.WEIGHTS)
    ngrams = tensors.get("ngrams")
    return Words(
        words=tuple(json.loads(tensors["words"].tobytes())),
        vectors=tensors["vectors"],
        counts=tensors.get("counts"),
        component=tensors.get("component"),
        smoothing=float(config["smoothing"]),
        subwords=None if ngrams is None else Subwords(vectors=ngrams, **config["subwords"]),
    )


def map_tensors(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as read-only arrays over the file itself.

    The format: 8 bytes of length, so much JSON, then the tensors (https://huggingface.co/docs/safetensors). Raises
    EncoderError where the file is damaged.
    """
    try:
        mapped = np.memmap(file, np.uint8, mode="r")
        size = int(mapped[:8].view("<u8")[0])
        header = json.loads(mapped[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        data = mapped[8 + size :]
        tensors: dict[str, NDArray[Any]] = {}
        for name, about in header.items():
            first, last = about["data_offsets"]
            tensors[name] = np.asarray(data[first:last].view(_TYPES[about["dtype"]]).reshape(about["shape"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, IndexError) as error:
        raise EncoderError(f"{file} cannot be read: {error}") from error
    return tensors


def cached(file: Path, words: Any) -> Path:
    """The folder that the vectors of ``file`` were converted to; ``words()`` reads them where it is not there yet.

    Below $EMBEDDB_CACHE, by default ~/.cache/embeddb, under the file's place, time and size.
    """
    state = file.stat()
    root = Path(os.environ.get("EMBEDDB_CACHE") or Path.home() / ".cache" / "embeddb") / "words"
    name = hashlib.sha256(f"{file.resolve()} {state.st_mtime_ns} {state.st_size}".encode()).hexdigest()
    folder = root / f"{file.name}-{name[:16]}"
    if not (folder / model_folder.CONFIG).exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EncoderError(f"{root} cannot be made ({error}): set EMBEDDB_CACHE to a folder that can") from error
        with tempfile.TemporaryDirectory(dir=root) as made:
            write(Path(made), words())
            folder.mkdir(exist_ok=True)
            # The configuration last: it says that the folder is whole.
            for part in (model_folder.WEIGHTS, model_folder.CONFIG):
                (Path(made) / part).replace(folder / part)
    return folder
