"""Settings that only say how vectors are made are none of an encoder's identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from embeddb.encoders import Encoder, Hashing, OpenAI, SentenceTransformer
from embeddb.encoders.identity import LOCAL, RUNNING, identity, portable, same_encoder

MINILM = SentenceTransformer("all-MiniLM-L6-v2")
REMOTE = OpenAI("some-model", dim=8)
OTHERWISE: Mapping[str, Any] = {
    "device": "cpu",
    "local_files_only": True,
    "api_key_env": "SOME_API_KEY",
    "base_url": "http://localhost:1/v1",
    "encoding_format": "float",
}


@pytest.mark.parametrize("encoder", [MINILM, REMOTE], ids=["sentence-transformer", "openai"])
def test_the_fingerprint_agrees(encoder: Any) -> None:
    running = {field.name for field in fields(encoder)} & RUNNING
    assert running
    for name in running:
        other: Encoder = replace(encoder, **{name: OTHERWISE.get(name, 3)})
        assert other.config != encoder.config
        assert same_encoder(encoder.config, other.config)
        assert other.fingerprint == encoder.fingerprint
        assert (portable(other.config) == portable(encoder.config)) == (name in LOCAL)
    assert not same_encoder(encoder.config, {**encoder.config, "model": "another"})


def test_an_encoder_within_another() -> None:
    def reduced(encoder: Encoder) -> dict[str, Any]:
        return {"type": "reduced", "encoder": dict(encoder.config), "model": "pca"}

    assert same_encoder(reduced(MINILM), reduced(replace(MINILM, batch_size=3)))
    assert not same_encoder(reduced(MINILM), reduced(Hashing(8)))


def test_of_anybody_elses_nothing_is_known() -> None:
    config = {"type": "somebody-else's", "batch_size": 3}
    assert identity(config) == config
    assert identity({"type": "reduced", "encoder": config, "timeout": 1}) == {"type": "reduced", "encoder": config}
