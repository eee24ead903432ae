from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddb.encoders import embed_documents, embed_query, from_config
from embeddb.encoders.transformer import Transformer
from embeddb.errors import EncoderError, NoEmbedding
from tests.encoders.tiny_models import TEXTS, save_transformer

torch = pytest.importorskip("torch", reason="needs the extra embeddb[text]")
transformers = pytest.importorskip("transformers", reason="needs the extra embeddb[text]")

FAMILIES = ("bert", "roberta", "gpt2", "llama", "t5")


@pytest.fixture(scope="module", params=[(family, side) for family in FAMILIES for side in ("left", "right")], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, side = request.param
    folder = tmp_path_factory.mktemp(f"{family}-{side}")
    save_transformer(folder, family, side)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    save_transformer(folder, "gpt2", "left")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_transformer(folder, "bert", "right")
    return folder


@cache
def _loaded(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    return transformers.AutoTokenizer.from_pretrained(folder), model


def _states(folder: Path, text: str, layer: int = -1) -> np.ndarray:
    """By transformers itself, one text at a time: nothing is padded."""
    tokenizer, model = _loaded(folder)
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        found: np.ndarray = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0].numpy()
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "weighted"])
def test_a_text_alone_is_as_in_a_padded_batch_and_as_computed_by_hand(folder: Path, pooling: Any) -> None:
    encoder = Transformer(str(folder), pooling=pooling, normalize=False)
    together = embed_documents(encoder, TEXTS)
    alone = np.concatenate([encoder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    weights: dict[str, Any] = {
        "mean": lambda n: np.full(n, 1 / n),
        "cls": lambda n: np.eye(n)[0],
        "last": lambda n: np.eye(n)[-1],
        "weighted": lambda n: np.arange(1, n + 1) / np.arange(1, n + 1).sum(),
    }
    for text, vector in zip(TEXTS, together, strict=True):
        states = _states(folder, text)
        expected = states.max(0) if pooling == "max" else weights[pooling](len(states)) @ states
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_control_padding_that_is_not_masked_gives_other_vectors(bert: Path) -> None:
    """Were the padding read, or GPT-2 padded on the left, the test above would see it."""
    encoder = Transformer(str(bert), normalize=False)
    tokenizer, model = _loaded(bert)
    with torch.no_grad():
        ids = tokenizer(TEXTS[1:3], padding=True, return_tensors="pt")["input_ids"]
        unmasked = model(input_ids=ids).last_hidden_state.mean(1).numpy()
    assert np.abs(unmasked[0] - encoder.encode_documents([TEXTS[1]])[0]).max() > 0.05


def test_any_layer(gpt2: Path) -> None:
    for layer in (0, 1, 2, 3, -1, -4):
        encoder = Transformer(str(gpt2), layer=layer, normalize=False)
        expected = _states(gpt2, TEXTS[0], layer).mean(0)
        np.testing.assert_allclose(encoder.encode_documents([TEXTS[0]])[0], expected, atol=1e-5)
    with pytest.raises(EncoderError, match="layers -4 to 3"):
        Transformer(str(gpt2), layer=4).encode_documents(["a"])


def test_a_model_without_a_last_position(tmp_path: Path) -> None:
    save_transformer(tmp_path, "xlnet", "left")
    encoder = Transformer(str(tmp_path))
    vectors = encoder.encode_documents([*TEXTS, " ".join(TEXTS) * 20])
    np.testing.assert_allclose(vectors[:1], encoder.encode_documents(TEXTS[:1]), atol=1e-5)


def test_long_text_is_cut_at_its_end(folder: Path) -> None:
    """Also where the tokeniser was saved to cut at the beginning; RoBERTa has two positions fewer than it says."""
    encoder = Transformer(str(folder), pooling="cls")
    long = "cat " * 500
    assert np.isfinite(encoder.encode_documents([long])).all()
    short = Transformer(str(folder), pooling="mean", max_length=4)
    start, end = short.encode_documents(["the dog " * 9 + "cat" * 9, "the dog " * 9 + "zz"])
    np.testing.assert_allclose(start, end, atol=1e-6)


def test_prompts_length_and_dimensions(bert: Path) -> None:
    plain, prompted = Transformer(str(bert)), Transformer(str(bert), query_prompt="a cat ", document_prompt="the ")
    np.testing.assert_array_equal(prompted.encode_queries(["sat"]), plain.encode_queries(["a cat sat"]))
    np.testing.assert_array_equal(prompted.encode_documents(["sat"]), plain.encode_documents(["the sat"]))
    np.testing.assert_allclose(np.linalg.norm(plain.encode_documents(TEXTS), axis=1), 1, rtol=1e-6)
    assert plain.dim == plain.encode_documents(["a"]).shape[1] == 32
    assert plain.encode_documents([]).shape == (0, 32)


def test_a_text_without_tokens_has_no_embedding(gpt2: Path) -> None:
    encoder = Transformer(str(gpt2))
    vectors = embed_documents(encoder, ["", "a cat", ""])
    assert np.isnan(vectors[[0, 2]]).all()
    assert np.isfinite(vectors[1]).all()
    with pytest.raises(NoEmbedding):
        embed_query(encoder, "")


def test_half_precision_is_near(bert: Path) -> None:
    whole = Transformer(str(bert)).encode_documents(TEXTS)
    half = Transformer(str(bert), dtype="bfloat16").encode_documents(TEXTS)
    assert half.dtype == np.float32
    assert 0.98 < (whole * half).sum(1).min() < 0.99999


def test_values_fingerprints_and_configurations(bert: Path, gpt2: Path, tmp_path: Path) -> None:
    encoder = Transformer(str(bert), pooling="max", layer=2)
    assert from_config(json.loads(json.dumps(encoder.config))) == encoder
    assert "dtype" not in encoder.config
    shutil.copytree(bert, tmp_path / "elsewhere")
    same = Transformer(str(tmp_path / "elsewhere"), pooling="max", layer=2)
    assert encoder.fingerprint == same.fingerprint
    others = [Transformer(str(bert), layer=2), Transformer(str(bert), pooling="max"), Transformer(str(gpt2))]
    others += [Transformer(str(bert), pooling="max", layer=2, document_prompt="x")]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_many_threads_share_one_model(bert: Path) -> None:
    encoder = Transformer(str(bert), batch_size=2)
    expected = encoder.encode_documents(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: encoder.encode_documents(TEXTS), range(32)):
            np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_code_that_comes_with_a_model_is_not_run(bert: Path, tmp_path: Path) -> None:
    save_transformer(tmp_path / "model", "bert", "right")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        Transformer(str(tmp_path / "model")).encode_documents(["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pooling": "sum"}, "pooling is one of"),
        ({"dtype": "int8"}, "dtype is one of"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        Transformer("model", **settings)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        _ = Transformer(str(tmp_path)).dim
