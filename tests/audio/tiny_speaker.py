"""A speaker network of random weights, and sounds to hear with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from embeddb.encoders import model_folder
from embeddb.encoders.speaker import DeepSpeaker, Shape
from embeddb.encoders.speaker.deep_speaker import KIND
from embeddb.encoders.speaker.rescnn import ResCNN
from embeddb.waveform import Waveform

TINY = Shape(channels=(4, 6), blocks=1, dim=16)


def save_random(folder: Path, seed: int = 0, shape: Shape = TINY) -> DeepSpeaker:
    """A network of random weights, whose normalisation is not the identity."""
    torch.manual_seed(seed)
    network = ResCNN(shape)
    for name, tensor in network.layers.state_dict().items():
        if name.endswith(("norm.running_mean", "norm.bias")):
            tensor.normal_(0, 0.3)
    tensors = {name: tensor.numpy() for name, tensor in network.layers.state_dict().items()}
    model_folder.write(folder, {"kind": KIND, "shape": shape.to_dict()}, tensors)
    return DeepSpeaker(str(folder))


def sounds(seconds: Sequence[float], seed: int = 0, rate: int = 16_000) -> list[Waveform]:
    """Chirps with noise, each another."""
    rng = np.random.default_rng(seed)
    found = []
    for length in seconds:
        at = np.arange(round(length * rate)) / rate
        tone = np.sin(2 * np.pi * (rng.uniform(100, 400) * at + rng.uniform(50, 500) * at**2))
        found.append(Waveform(np.asarray(0.3 * tone + 0.05 * rng.standard_normal(len(at)), np.float32), rate))
    return found


def save_wavlm(folder: Path, norm: str = "group") -> None:
    """A tiny WavLM of random weights; ``norm``: of its first layers, group or layer."""
    import transformers

    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(16, 16, 16, 16, 32),
        xvector_output_dim=12,
        feat_extract_norm=norm,
        num_ctc_classes=4,
    )
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=norm == "layer").save_pretrained(folder)
