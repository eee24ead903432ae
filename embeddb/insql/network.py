"""A transformer as matrices, ready for the SQL that multiplies them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.errors import EncoderError

Matrix = NDArray[np.float64]

#: Elements of a row on a page of Postgres, and what the array and each of its vectors take beside them.
PAGE: Final = 8160
ROW: Final = 80
NEURON: Final = 8

_ACTIVATIONS: Final[Mapping[str, str]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
#: What the SQL of an activation expects its inputs to be multiplied by, and leaves out of its outputs. GELU is
#: x/2 · erfc(-x/√2), and SQL computes z · erfc(z).
_SCALES: Final[Mapping[str, tuple[float, float]]] = {
    "gelu": (-math.sqrt(0.5), -math.sqrt(0.5)),
    "gelu_tanh": (1.0, 0.5),
    "relu": (1.0, 1.0),
}


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """Rows of ``embeddb.transformer_weight``: ``matrix`` has a neuron a row, as SQL reads it."""

    layer: int
    name: str
    slice: int
    matrix: Matrix


@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """``tokens``: a vector for every id. ``slice_width``: elements that the widest rows are cut to.

    ``unplaced``: the token that takes no position, where there is one: padding, which SQL does without.
    """

    layers: int
    heads: int
    width: int
    slices: int
    slice_width: int
    activation: str
    epsilon: float
    tokens: NDArray[np.float32]
    parts: tuple[Part, ...]
    positions: int
    unplaced: int | None


@dataclass(frozen=True, slots=True)
class _Names:
    """What a family calls its modules, below the model and below a layer."""

    layers: str
    embedding_norm: str
    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    up: str
    down: str
    output_norm: str
    activation: str
    epsilon: float | None
    first_position: int
    relative: str | None = None


_BERT: Final = _Names(
    layers="encoder.layer",
    embedding_norm="embeddings.LayerNorm",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
    activation="hidden_act",
    epsilon=None,
    first_position=0,
)


def read(model: Any, halves: bool) -> Network:
    """The matrices of a transformers model: BERT, RoBERTa, DistilBERT or MPNet.

    ``halves``: cut rows for half precision. Raises EncoderError for another architecture or an unknown activation.
    """
    config = model.config
    names = _names(config)
    weights = {name: tensor.detach().cpu().double().numpy() for name, tensor in model.named_parameters()}
    activation = getattr(config, names.activation)
    if activation not in _ACTIVATIONS:
        raise EncoderError(f"the activation {activation!r} has no SQL: only {', '.join(_ACTIVATIONS)}")
    width, heads = weights[f"{names.embedding_norm}.weight"].shape[0], config.num_attention_heads
    inner = weights[f"{names.layers}.0.{names.up}.weight"].shape[0]
    largest = (PAGE - ROW - NEURON) // (2 if halves else 4) - 1
    if width > largest:
        raise EncoderError(f"{width} dimensions between the layers are more than fit on a page ({largest})")
    slices = math.ceil(inner / largest)
    slice_width = math.ceil(inner / slices)
    parts = [*_embeddings(weights, names)]
    if names.relative:
        parts.append(Part(-1, "relative", 0, _relative(model, weights[names.relative], config)))
    for layer in range(len([name for name in weights if name.endswith(f".{names.query}.weight")])):
        prefix = f"{names.layers}.{layer}."
        parts += _layer(
            layer, {n: weights[f"{prefix}{n}"] for n in _of(weights, prefix)}, names, heads,
            _ACTIVATIONS[activation], slice_width,
        )  # fmt: skip
    return Network(
        layers=parts[-1].layer + 1,
        heads=heads,
        width=width,
        slices=slices,
        slice_width=slice_width,
        activation=_ACTIVATIONS[activation],
        epsilon=float(names.epsilon or config.layer_norm_eps),
        tokens=weights["embeddings.word_embeddings.weight"].astype(np.float32),
        parts=tuple(parts),
        positions=len(weights["embeddings.position_embeddings.weight"]) - names.first_position,
        unplaced=names.first_position - 1 if names.first_position else None,
    )


def _of(weights: Mapping[str, Matrix], prefix: str) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in weights if name.startswith(prefix))


def _names(config: Any) -> _Names:
    if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
        raise EncoderError(f"position embeddings of type {config.position_embedding_type!r} have no SQL")
    if getattr(config, "is_decoder", False):
        raise EncoderError("a decoder has no SQL: only encoders that see the whole text")
    family = config.model_type
    if family == "bert":
        return _BERT
    if family in ("roberta", "xlm-roberta", "camembert"):
        # Positions are counted from after the padding token's id.
        return _changed(_BERT, first_position=config.pad_token_id + 1)
    if family == "mpnet":
        return _changed(
            _BERT, query="attention.attn.q", key="attention.attn.k", value="attention.attn.v",
            attended="attention.attn.o", attended_norm="attention.LayerNorm",
            first_position=2, relative="encoder.relative_attention_bias.weight",
        )  # fmt: skip
    if family == "distilbert":
        return _Names(
            layers="transformer.layer", embedding_norm="embeddings.LayerNorm", query="attention.q_lin",
            key="attention.k_lin", value="attention.v_lin", attended="attention.out_lin", attended_norm="sa_layer_norm",
            up="ffn.lin1", down="ffn.lin2", output_norm="output_layer_norm", activation="activation", epsilon=1e-12,
            first_position=0,
        )  # fmt: skip
    raise EncoderError(f"transformers of the type {family!r} have no SQL: only bert, roberta, distilbert and mpnet")


def _changed(names: _Names, **changes: Any) -> _Names:
    from dataclasses import replace

    return replace(names, **changes)


def _neurons(weight: Matrix, bias: Matrix) -> Matrix:
    """A neuron a row, its bias as the last element, all negated."""
    return -np.concatenate([weight, bias[:, None]], axis=1)


def _norm(layer: int, name: str, gain: Matrix, bias: Matrix) -> Part:
    return Part(layer, name, 0, np.stack([gain * math.sqrt(len(gain)), bias]))


def _embeddings(weights: Mapping[str, Matrix], names: _Names) -> Iterator[Part]:
    positions = weights["embeddings.position_embeddings.weight"][names.first_position :]
    types = weights.get("embeddings.token_type_embeddings.weight")
    yield Part(-1, "position", 0, positions if types is None else positions + types[0])
    yield _norm(-1, "norm", weights[f"{names.embedding_norm}.weight"], weights[f"{names.embedding_norm}.bias"])


def _layer(
    layer: int, own: Mapping[str, Matrix], names: _Names, heads: int, activation: str, slice_width: int
) -> Iterator[Part]:
    """The parts of a layer, with what its algebra allows folded in.

    The scale of the scores goes into the queries. A key's bias adds the same to all scores of a query, which the
    softmax takes away. A value's bias is in every weighted mean as it is, so it goes through the next matrix once.
    """

    def linear(name: str) -> tuple[Matrix, Matrix]:
        return own[f"{name}.weight"], own[f"{name}.bias"]

    query, query_bias = linear(names.query)
    key, key_bias = linear(names.key)
    value, value_bias = linear(names.value)
    attended, attended_bias = linear(names.attended)
    up, up_bias = linear(names.up)
    down, down_bias = linear(names.down)
    into, out = _SCALES[activation]
    scale = 1 / math.sqrt(len(query) // heads)
    scaled = _neurons(query * scale, query_bias * scale)
    yield Part(layer, "query_key", 0, np.concatenate([scaled, _neurons(key, np.zeros_like(key_bias))]))
    yield Part(layer, "value", 0, _neurons(value, np.zeros_like(value_bias)))
    yield Part(layer, "attended", 0, _neurons(attended, attended_bias + attended @ value_bias))
    yield _norm(layer, "attended_norm", *linear(names.attended_norm))
    yield Part(layer, "up", 0, _neurons(up * into, up_bias * into))
    for number, start in enumerate(range(0, down.shape[1], slice_width)):
        cut = down[:, start : start + slice_width] * out
        yield Part(layer, "down", number, _neurons(cut, down_bias if number == 0 else np.zeros_like(down_bias)))
    yield _norm(layer, "output_norm", *linear(names.output_norm))


def _relative(model: Any, table: Matrix, config: Any) -> Matrix:
    """MPNet's bias by distance, a row a head from the farthest before to the farthest after; and a 1 amid zeros."""
    torch = __import__("torch")
    longest = config.max_position_embeddings
    bucket: Callable[..., Any] = model.encoder.relative_position_bucket
    distances = torch.arange(-longest + 1, longest)
    buckets = bucket(distances, num_buckets=config.relative_attention_num_buckets).numpy()
    middle = np.zeros((1, len(distances)))
    middle[0, longest - 1] = 1
    return np.concatenate([table[buckets].T, middle])
