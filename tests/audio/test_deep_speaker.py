from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddb.encoders import embed_documents
from embeddb.encoders.protocol import Encoder
from embeddb.encoders.speaker import DeepSpeaker, Shape
from embeddb.errors import EncoderError
from embeddb.waveform import Waveform
from tests.audio.tiny_speaker import TINY, save_random, sounds


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.03, 1.5), min_size=2, max_size=7))
def test_a_sound_in_a_batch_has_the_vector_that_it_has_alone(encoder: DeepSpeaker, seconds: list[float]) -> None:
    batch = sounds(seconds)
    together = encoder.encode_documents(batch)
    alone = np.concatenate([encoder.encode_documents([sound]) for sound in batch])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_neither_loudness_nor_the_sample_rate_of_the_file_matters_much(encoder: DeepSpeaker) -> None:
    [sound] = sounds([1.0])
    [other] = sounds([1.0], seed=9)
    quiet = Waveform(sound.samples * np.float32(0.01), sound.rate)
    whole, soft, different = encoder.encode_documents([sound, quiet, other])
    np.testing.assert_allclose(whole, soft, atol=1e-4)
    assert np.abs(whole - different).max() > 0.01


def test_a_long_sound_is_the_mean_of_its_windows(encoder: DeepSpeaker) -> None:
    [sound] = sounds([3.0])
    windowed = DeepSpeaker(encoder.model, window=1.0)
    parts = encoder.encode_documents([Waveform(sound.samples[at : at + 16_000], 16_000) for at in (0, 16_000, 32_000)])
    mean = parts.mean(0) / np.linalg.norm(parts.mean(0))
    np.testing.assert_allclose(windowed.encode_documents([sound])[0], mean, atol=1e-5)
    assert windowed.fingerprint != encoder.fingerprint


def test_a_sound_of_nothing_has_no_embedding(encoder: DeepSpeaker) -> None:
    silent = Waveform(np.zeros(16_000, np.float32), 16_000)
    short = Waveform(np.ones(300, np.float32), 16_000)
    vectors = embed_documents(encoder, [silent, *sounds([0.5]), short])
    assert np.isnan(vectors).all(1).tolist() == [True, False, True]


def test_only_sound_that_says_its_rate_is_taken(encoder: DeepSpeaker) -> None:
    with pytest.raises(EncoderError, match="sample rate") as caught:
        encoder.encode_documents([*sounds([0.5]), np.ones(16_000, np.float32)])
    assert caught.value.position == 1
    assert encoder.encode_documents([]).shape == (0, 16)


def test_equal_settings_are_equal_encoders_and_content_is_the_fingerprint(tmp_path: Path) -> None:
    first, copy, other = (save_random(tmp_path / name, seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    assert first == DeepSpeaker(str(tmp_path / "a"))
    assert first != copy
    assert first.fingerprint == copy.fingerprint != other.fingerprint
    assert isinstance(first, Encoder)
    config = json.loads(json.dumps(first.config))
    assert config.pop("type") == "deep-speaker"
    assert DeepSpeaker(**config) == first
    assert first.dim == TINY.dim


def test_a_model_that_is_trained_anew_in_its_place_is_noticed(tmp_path: Path) -> None:
    [sound] = sounds([0.5])
    encoder = save_random(tmp_path, 1)
    before, fingerprint = encoder.encode_documents([sound]), encoder.fingerprint
    save_random(tmp_path, 2, Shape(channels=(5,), blocks=2, dim=16))
    assert np.abs(encoder.encode_documents([sound]) - before).max() > 0.01
    assert encoder.fingerprint != fingerprint


def test_threads_share_one_network_and_agree(encoder: DeepSpeaker) -> None:
    batches = [sounds([0.4, 0.7], seed) for seed in range(8)]
    expected = [encoder.encode_documents(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        for vectors, known in zip(threads.map(encoder.encode_documents, batches), expected, strict=True):
            np.testing.assert_allclose(vectors, known, atol=1e-6)


def test_the_default_shape_is_the_papers_with_24_million_parameters() -> None:
    from embeddb.encoders.speaker.rescnn import ResCNN

    parameters = sum(parameter.numel() for parameter in ResCNN(Shape()).layers.parameters())
    assert 23.5e6 < parameters < 25e6


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no trained model"):
        _ = DeepSpeaker(str(tmp_path)).dim
    encoder = save_random(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "item2vec"}')
    with pytest.raises(EncoderError, match="kind 'item2vec'"):
        _ = encoder.dim
    save_random(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EncoderError, match="cannot be read"):
        encoder.encode_documents(sounds([0.5]))


@pytest.mark.parametrize("values", [{"channels": ()}, {"channels": (0,)}, {"blocks": 0}, {"dim": -1}, {"width": 3}])
def test_a_shape_has_positive_sizes(values: dict[str, object]) -> None:
    with pytest.raises(EncoderError):
        Shape.from_dict(values)
