"""``Module``: any PyTorch module, at any of its layers: CNNs, RNNs, and models of one's own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

import numpy as np

from embeddb.encoders import factory, layer_output, weights
from embeddb.encoders.layer_output import Lengths, ModulePooling
from embeddb.encoders.memo import Memo
from embeddb.encoders.pictures import as_array, decodes, is_picture, pictures
from embeddb.encoders.pretrained import best_device
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, repr=False)
class Module(Settings):
    """Vectors from any layer of any PyTorch module.

    ``module``: a module; or what makes one, as a callable or as "package.module:function", which a worker elsewhere
    can call as well. ``arguments``: for that function, as JSON. ``weights``: a file of them, safetensors or a state
    dict by ``torch.save``; pickled modules are never loaded. ``layer``: the layer whose output is taken, by its name in
    ``module.named_modules()``; "" for the whole module. ``pooling``: mean, max, last, cls (the first), weighted or
    flatten: over the steps of a sequence, or the places of a feature map. ``preprocess``: a callable, or
    "package.module:function", from an input to a tensor or array without the batch's dimension; by default an image
    becomes (3, height, width) within 0 and 1, and everything else is taken as an array. ``lengths``: how the module
    takes sequences of several lengths, "equal", "packed" or "argument" (see ``Lengths``). ``dimensions``: of the
    vectors, where the layer does not tell them. ``modality``: of the inputs. ``normalize``: scale to length 1.

    The module runs in evaluation mode, one thread at a time, and is left in the mode that it was in. An input
    without a step has no embedding. An encoder of a module object, or of a callable that cannot be imported by its
    name, cannot be made again from its configuration.
    """

    module: Any
    weights: str | None = None
    layer: str = ""
    pooling: ModulePooling = "mean"
    preprocess: Any = None
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    lengths: Lengths = "equal"
    dimensions: int | None = None
    modality: Modality = "image"
    normalize: bool = True
    device: str | None = None
    batch_size: int = 64

    type: ClassVar[str] = "module"

    def __post_init__(self) -> None:
        for name in ("module", "preprocess"):
            value = getattr(self, name)
            object.__setattr__(self, name, factory.name_of(value) or value if callable(value) else value)
        if self.weights is not None:
            object.__setattr__(self, "weights", str(self.weights))
        if self.pooling not in get_args(ModulePooling) or self.lengths not in get_args(Lengths):
            raise EncoderError(
                f"{self!r}: pooling is one of {', '.join(get_args(ModulePooling))}, lengths one of "
                f"{', '.join(get_args(Lengths))}"
            )
        if self.batch_size < 1:
            raise EncoderError(f"{self!r}: batch_size is at least 1")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, allow_factories: Iterable[str] = ()) -> Module:
        """The encoder of a configuration, if its functions are in modules that may be called.

        Those are ``allow_factories`` and the environment variable EMBEDDB_ALLOW_FACTORIES: a configuration comes from
        a database, and who may write there must not choose the code that runs here. Raises EncoderError.
        """
        settings = {name: value for name, value in config.items() if name != "type"}
        known = {setting.name for setting in fields(cls)}
        if "module" not in settings or not known.issuperset(settings):
            raise EncoderError(f"encoder 'module' cannot be made of {sorted(settings)}: it takes {sorted(known)}")
        if ":" not in str(settings["module"]):
            raise EncoderError(
                f"this encoder was made of an object, {settings['module']!r}, which is in one program only"
            )
        for name in ("module", "preprocess"):
            if settings.get(name) is not None:
                factory.check_allowed(str(settings[name]), allow_factories)
        return cls(**settings)

    @property
    def config(self) -> Mapping[str, Any]:
        named = {name: value if isinstance(value, str) else _called(value) for name, value in self._objects()}
        return {"type": self.type, **self._said(), **named}

    @property
    def dim(self) -> int:
        found = self.dimensions or layer_output.width(self._layer(self._loaded().module))
        if found is None or (self.pooling == "flatten" and not self.dimensions):
            raise EncoderError(f"{self!r}: the layer does not tell its dimensions: give dimensions=")
        return found

    @property
    def fingerprint(self) -> str:
        """Of the names, the settings, and the module's parameters; loads it."""
        incidental = {"weights", "device", "batch_size"}
        said = {name: value for name, value in self.config.items() if name not in incidental}
        parts = ["module", 1, said, weights.digest(self._loaded().module)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32; NaN throughout for a sequence without a step."""
        import torch

        loaded = self._loaded()
        tensors = [self._tensor(value, position) for position, value in enumerate(inputs)]
        vectors: Vectors = np.full((len(inputs), self.dim), np.nan, np.float32)
        for rows in self._batches(tensors):
            with loaded.turn, _evaluating(loaded.module), torch.inference_mode():
                found = self._run(loaded.module, [tensors[row] for row in rows])
            if self.normalize:
                found = torch.nn.functional.normalize(found, dim=1)
            if found.shape[1] != self.dim:
                raise EncoderError(f"{self!r}: the layer gives {found.shape[1]} dimensions: give dimensions=")
            vectors[rows] = found.cpu().numpy()
        return vectors

    def encode_queries(self, inputs: Sequence[Any]) -> Vectors:
        """The same: what is asked for is an input like any other."""
        return self.encode_documents(inputs)

    def _objects(self) -> Iterator[tuple[str, Any]]:
        yield "module", self.module
        if self.preprocess is not None:
            yield "preprocess", self.preprocess

    def _tensor(self, value: Any, position: int) -> Tensor:
        import torch

        if decodes(value):
            value = pictures([value], first=position)[0]
        if self.preprocess is None:
            value = as_array(pictures([value])[0]) if is_picture(value) else value
        else:
            function = self.preprocess
            value = (factory.import_function(function) if isinstance(function, str) else function)(value)
        try:
            tensor = value if torch.is_tensor(value) else torch.from_numpy(np.asarray(value))
        except TypeError as error:
            raise EncoderError(f"input {position} is no array: {error}", position=position) from error
        return tensor.float() if tensor.is_floating_point() else tensor

    def _batches(self, tensors: Sequence[Tensor]) -> Iterator[list[int]]:
        """Rows of one shape, or where the module takes lengths, of like ones; without those that hold nothing."""
        rows = [row for row in range(len(tensors)) if tensors[row].numel()]
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in sorted(rows, key=lambda row: tensors[row].shape[:1]):
            shape = tuple(tensors[row].shape)
            groups.setdefault(shape if self.lengths == "equal" else shape[1:], []).append(row)
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _run(self, module: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
        """One forward pass; vectors (batch, dim)."""
        import torch
        from torch.nn.utils.rnn import pack_sequence, pad_sequence

        layer = self._layer(module)
        given: list[Any] = []
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        tensors = [tensor.to(device) for tensor in tensors]
        steps = None if self.lengths == "equal" else [len(tensor) for tensor in tensors]
        handle = layer.register_forward_hook(lambda _module, _inputs, output: given.append(output))
        try:
            if self.lengths == "packed":
                module(pack_sequence(list(tensors), enforce_sorted=False))
            elif self.lengths == "argument":
                module(pad_sequence(list(tensors), batch_first=True), torch.tensor(steps))
            else:
                module(torch.stack(list(tensors)))
        finally:
            handle.remove()
        if not given:
            raise EncoderError(f"{self!r}: the layer is not used in the module's forward pass")
        return layer_output.vectors_of(given[-1], layer, self.pooling, steps)

    def _layer(self, module: nn.Module) -> nn.Module:
        layers = dict(module.named_modules())
        if self.layer not in layers:
            raise EncoderError(f"{self!r}: there is no layer {self.layer!r}, only {', '.join(filter(None, layers))}")
        layer: nn.Module = layers[self.layer]
        return layer

    def _loaded(self) -> _Loaded:
        key = (self.module, json.dumps(self.arguments, sort_keys=True), self.weights, self.lengths, self.device)
        return _modules.get(key, self._load)

    def _load(self) -> _Loaded:
        import torch

        module = self.module
        if not isinstance(module, torch.nn.Module):
            function = factory.import_function(module) if isinstance(module, str) else module
            try:
                module = function(**(self.arguments or {}))
            except Exception as error:  # whatever it raises
                raise EncoderError(f"{self!r}: making the module failed: {type(error).__name__}: {error}") from error
            if not isinstance(module, torch.nn.Module):
                raise EncoderError(f"{self!r}: it makes {type(module).__name__}, not a torch.nn.Module")
            module = module.to(self.device or best_device())
        if isinstance(module, torch.nn.RNNBase) and not module.batch_first and self.lengths == "equal":
            raise EncoderError(f"{self!r}: it takes the steps before the batch: make it with batch_first=True")
        if self.weights is not None:
            weights.put_weights(module, Path(self.weights).expanduser())
        return _Loaded(module)


def configured(**settings: Any) -> Module:
    """For the registry. No key of a configuration can say what a configuration may do."""
    return Module.from_config(settings)


@dataclass(frozen=True)
class _Loaded:
    module: nn.Module
    #: Hooks see every thread's pass, so there is one pass at a time.
    turn: threading.Lock = field(default_factory=threading.Lock)


_modules: Final[Memo[tuple[Any, ...], _Loaded]] = Memo(size=32)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout and the like, for as long as it takes; it may be in training elsewhere."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _called(value: Any) -> str:
    """What a configuration calls an object that it cannot hold."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))
