"""Where a model is found, and what of it is fetched: against a hub of our own on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embeddb.encoders import SentenceTransformer, sentence_files
from tests.encoders import tiny_models
from tests.encoders.http_stub import Request, Response, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Just enough of huggingface.co: a model's list of files, and the files."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.url = ""
        self.served: list[str] = []

    def answer(self, request: Request) -> Response:
        path = request.path.split("?")[0].removeprefix("/")
        for name, folder in self.models.items():
            files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
            if path.removeprefix("api/models/").split("/revision/")[0] == name:
                listed = [{"rfilename": file} for file in files]
                return _json(
                    {"id": name, "modelId": name, "sha": COMMIT, "siblings": listed, "tags": [], "private": False}
                )
            if path.startswith(f"api/models/{name}/tree/"):
                return _json([_described(folder, file) for file in files])
            file = path.removeprefix(f"{name}/resolve/").partition("/")[2]
            if path.startswith(f"{name}/resolve/") and file in files:
                if request.method == "GET":
                    self.served.append(file)
                content = (folder / file).read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                return Response(body=content, headers={"etag": etag, "x-repo-commit": COMMIT})
        return Response(404, headers={"x-error-code": "RepoNotFound"})


def _json(value: Any) -> Response:
    return Response(body=json.dumps(value).encode(), headers={"content-type": "application/json"})


def _described(folder: Path, file: str) -> dict[str, Any]:
    content = (folder / file).read_bytes()
    return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}


@pytest.fixture(scope="module")
def hub(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """With a model that has much beside it that is not needed."""
    folder = Path(shutil.copytree(models / "prompted", tmp_path_factory.mktemp("hub") / "tiny"))
    for unwanted in ("modeling.py", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "openvino/x.xml", "a.png"):
        (folder / unwanted).parent.mkdir(exist_ok=True)
        (folder / unwanted).write_text("unwanted")
    server = Hub({"sentence-transformers/tiny": folder, "someone/onnx": _with_onnx(folder)})
    with serve(server.answer) as url:
        server.url = url
        yield server


def _with_onnx(folder: Path) -> Path:
    other = Path(shutil.copytree(folder, folder.parent / "onnx"))
    (other / "onnx" / "model_quantized.onnx").write_text("unwanted")
    return other


def ask(hub: Hub, cache: Path, *asked: str, code: str = "") -> list[str]:
    """In a process of its own: the hub's address and the cache are read when its client is imported."""
    program = "import sys; from embeddb.encoders import SentenceTransformer\n" + code
    program += "".join(f"print({expression})\n" for expression in asked)
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_fetched_and_when(hub: Hub, models: Path, tmp_path: Path) -> None:
    here = SentenceTransformer(str(models / "prompted"))
    assert ask(hub, tmp_path, "SentenceTransformer('tiny').dim") == ["32"]
    assert "model.safetensors" not in hub.served, "the dimensions need the configuration only"
    got = ask(hub, tmp_path, "SentenceTransformer('tiny').fingerprint", "'torch' in sys.modules")
    assert got == [here.fingerprint, "False"]
    assert {"model.safetensors", "tokenizer.json"} <= set(hub.served)
    unwanted = {"modeling.py", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "openvino/x.xml", "a.png"}
    assert not unwanted & set(hub.served)
    hub.served.clear()
    tiny = "SentenceTransformer('sentence-transformers/tiny', local_files_only=True)"
    assert ask(hub, tmp_path, f"{tiny}.encode_documents(['the cat']).shape") == ["(1, 32)"]
    assert not hub.served, "what is in the cache is not asked for again"


def test_a_backend_fetches_its_plain_export(hub: Hub, tmp_path: Path) -> None:
    ask(hub, tmp_path, "SentenceTransformer('someone/onnx', backend='onnx', revision='main').fingerprint")
    assert "onnx/model.onnx" in hub.served
    assert "onnx/model_quantized.onnx" not in hub.served


def test_a_model_that_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    code = (
        "from embeddb.errors import EncoderNotFound\n"
        "try: SentenceTransformer('someone/else').dim\n"
        "except EncoderNotFound as error: said = str(error)\n"
    )
    assert "there is no model 'someone/else'" in ask(hub, tmp_path, "said", code=code)[0]


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    nowhere = Hub({})
    nowhere.url = "http://127.0.0.1:9"
    code = (
        "import time; from embeddb.errors import TransientEncoderError; start = time.monotonic()\n"
        "try: SentenceTransformer('someone/else').dim\n"
        "except TransientEncoderError as error: said = str(error)\n"
    )
    said, seconds = ask(nowhere, tmp_path, "said", "time.monotonic() - start", code=code)
    assert "the hub cannot be reached" in said
    assert float(seconds) < 20, "no rounds of retries before a model is known to be absent"


def test_a_model_in_parts_is_there_when_every_part_is(tmp_path: Path) -> None:
    assert not sentence_files.has_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    )
    (tmp_path / "one.safetensors").touch()
    assert not sentence_files.has_weights(tmp_path)
    (tmp_path / "two.safetensors").touch()
    assert sentence_files.has_weights(tmp_path)


@pytest.mark.parametrize(
    ("pooling", "dim"),
    [
        ({"word_embedding_dimension": 10, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, 20),
        ({"word_embedding_dimension": 10, "pooling_mode_mean_tokens": False}, 10),
        ({"embedding_dimension": 10, "pooling_mode": "mean"}, 10),
        ({"embedding_dimension": 10, "pooling_mode": ["mean", "max", "cls"]}, 30),
        ({}, None),
    ],
)
def test_dimensions_of_older_and_newer_models(tmp_path: Path, pooling: dict[str, Any], dim: int | None) -> None:
    kinds = ("sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")
    modules = [
        {"idx": n, "name": str(n), "path": "1_Pooling" if n else "", "type": kind} for n, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "config.json").write_text('{"d_model": 10}')
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert sentence_files.dimensions(tmp_path) == dim


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({}, None, ("", "")),
        ({"query": "query : ", "document": "passage : "}, None, ("query : ", "passage : ")),
        ({"query": "query : ", "document": "", "passage": "passage : "}, None, ("query : ", "passage : ")),
        ({"query": "query : ", "corpus": "the dog "}, None, ("query : ", "the dog ")),
        ({"query": "", "document": "", "other": "the dog "}, "other", ("", "")),
        ({"other": "the dog "}, "other", ("the dog ", "the dog ")),
    ],
)
def test_a_models_own_prompts(
    models: Path, tmp_path: Path, prompts: dict[str, str], default: str | None, expected: tuple[str, str]
) -> None:
    import sentence_transformers

    folder = Path(shutil.copytree(models / "mean", tmp_path / "own"))
    tiny_models.write_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name=default)
    encoder = SentenceTransformer(str(folder))
    bare: Any = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    for vectors, prompt in zip(
        (encoder.encode_queries(["the cat"]), encoder.encode_documents(["the cat"])), expected, strict=True
    ):
        assert vectors[0] == pytest.approx(bare.encode("the cat", prompt=prompt), abs=1e-6)
