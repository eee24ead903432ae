from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from embeddb.encoders import Hashing, OpenAI, SentenceTransformer, from_config, resolve
from embeddb.encoders.registry import BUILT_IN
from embeddb.errors import EncoderError, EncoderNotFound
from tests.encoders.encoder_stubs import Stub


def test_an_object_is_itself() -> None:
    stub = Stub()
    assert resolve(stub) is stub


def test_names() -> None:
    assert resolve("hashing") == Hashing()
    assert resolve("all-MiniLM-L6-v2") == SentenceTransformer("all-MiniLM-L6-v2")
    assert resolve("intfloat/e5-small-v2") == SentenceTransformer("intfloat/e5-small-v2")


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "hashing models"
    folder.mkdir()
    assert resolve(str(folder)) == SentenceTransformer(str(folder))


@pytest.mark.parametrize(
    "encoder",
    [
        Hashing(64),
        SentenceTransformer("all-MiniLM-L6-v2", truncate_dim=64, query_prompt="q: ", device="cpu"),
        OpenAI("nomic-embed-text", dim=768, base_url="http://127.0.0.1:11434/v1", api_key_env="NOMIC_API_KEY"),
    ],
)
def test_a_configuration_makes_the_encoder_again(encoder: Hashing | SentenceTransformer | OpenAI) -> None:
    config = json.loads(json.dumps(dict(encoder.config)))
    assert from_config(config) == encoder
    assert resolve(config) == encoder
    assert config["type"] in BUILT_IN


def test_types_of_the_application() -> None:
    made = from_config({"type": "stub", "dim": 3}, types={"stub": lambda dim: Stub(dim=dim)})
    assert made.dim == 3


@pytest.mark.parametrize("name", ["hashin", "Hashing", "no such folder/or model/x", "os:system"])
def test_a_name_that_nothing_answers_to(name: str) -> None:
    with pytest.raises(EncoderNotFound, match=r"hashing, .*openai, .*sentence-transformer.*Install"):
        resolve(name)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(EncoderNotFound, match="did you mean 'hashing'"):
        resolve("hashin")


@pytest.mark.parametrize(
    "config", [{"type": "os:system"}, {"type": "embeddb.encoders.hashing:Hashing"}, {"dim": 3}, {"type": 3}]
)
def test_a_configuration_imports_nothing(config: dict[str, object]) -> None:
    with pytest.raises(EncoderNotFound):
        from_config(config)


def test_wrong_arguments() -> None:
    with pytest.raises(EncoderError, match=r"'hashing' cannot be made of \['dims'\]"):
        from_config({"type": "hashing", "dims": 3})
    with pytest.raises(EncoderError, match="'openai' cannot be made of .*'dim': '8'"):
        from_config({"type": "openai", "model": "m", "dim": "8"})
    with pytest.raises(EncoderError, match=r"missing a required argument: 'model'"):
        resolve("openai")


def test_what_is_no_encoder() -> None:
    with pytest.raises(EncoderError, match="it has no modality, dim, fingerprint, config"):
        resolve(3)  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match=r"Hashing is a class: give an encoder, Hashing\("):
        resolve(Hashing)  # type: ignore[arg-type]


def test_what_cannot_be_a_key() -> None:
    @dataclass
    class Mutable(Stub):
        size: int = 3

    with pytest.raises(EncoderError, match=r"frozen=True"):
        resolve(Mutable())


def test_asking_what_it_is_loads_nothing() -> None:
    class Heavy(Stub):
        @property
        def dim(self) -> int:
            raise AssertionError("read")

        @dim.setter
        def dim(self, value: int) -> None: ...

    heavy = Heavy()
    assert resolve(heavy) is heavy


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[embeddb.encoders]\n"
        "plugged = embeddb_test_plugin:make\nbroken = embeddb_test_nowhere:make\nhashing = os:system\n"
    )
    (tmp_path / "embeddb_test_plugin.py").write_text(
        "from embeddb.encoders import Hashing\ndef make(dim=5): return Hashing(dim)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("plugged") == Hashing(5)
    assert from_config({"type": "plugged", "dim": 6}) == Hashing(6)
    assert resolve("hashing") == Hashing(), "no package may take the name of a type that is built in"
    with pytest.raises(EncoderError, match=r"'broken' \(embeddb_test_nowhere:make of plugin\) cannot be imported"):
        resolve("broken")


def test_importing_and_naming_encoders_loads_no_model_library() -> None:
    code = (
        "import sys; from embeddb.encoders import OpenAI, SentenceTransformer, resolve\n"
        "resolve('all-MiniLM-L6-v2').config; OpenAI('text-embedding-3-small').fingerprint; resolve('hashing').dim\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'httpx', 'tenacity', 'sqlalchemy'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
