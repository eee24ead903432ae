from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embeddb.encoders.speaker import XVector
from embeddb.errors import EncoderError
from tests.audio.tiny_speaker import save_wavlm, sounds


@pytest.fixture(scope="module", params=["group", "layer"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WavLM, with either normalisation of its first layers."""
    folder = tmp_path_factory.mktemp("wavlm")
    save_wavlm(folder, request.param)
    return folder


def test_vectors_are_the_models_own_at_length_one_alone_and_in_a_batch(folder: Path) -> None:
    import transformers

    encoder = XVector(str(folder))
    batch = sounds([1.0, 0.7, 1.0, 1.3])
    vectors = encoder.encode_documents(batch)
    model = transformers.WavLMForXVector.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    for sound, vector in zip(batch, vectors, strict=True):
        heard = extractor(sound.samples, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            expected = model(heard["input_values"]).embeddings[0].numpy()
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    assert encoder.dim == vectors.shape[1] == 12


def test_other_rates_and_short_and_long_sounds_are_heard(folder: Path) -> None:
    encoder = XVector(str(folder), window=1.0)
    [slow] = sounds([0.8], rate=8_000)
    vectors = encoder.encode_documents([slow, *sounds([0.05, 2.5])])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert XVector(str(folder)).fingerprint == XVector(str(tmp_path)).fingerprint
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert XVector(str(folder)).fingerprint != XVector(str(tmp_path)).fingerprint


def test_weights_that_could_run_code_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="safetensors"):
        XVector(str(tmp_path)).encode_documents(sounds([0.6]))
