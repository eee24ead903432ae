"""From a name or a configuration to an encoder.

The order: an object is taken as it is; then the types built in; then the caller's own ``types``; then the entry
points that installed packages offer in the group ``embeddb.encoders``; else EncoderNotFound. A configuration
comes from a database, so it can only name a type of these, never a path to import.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, cast

from embeddb.encoders.protocol import Encoder
from embeddb.errors import EncoderError, EncoderNotFound

Factory = Callable[..., Encoder]

ENTRY_POINT_GROUP: Final = "embeddb.encoders"

#: A configuration's ``type`` → where its class is. A new encoder of this package is one more line.
BUILT_IN: Final[Mapping[str, str]] = {
    "clip": "embeddb.encoders.clip:CLIP",
    "als": "embeddb.encoders.history:ALS",
    "deep-speaker": "embeddb.encoders.speaker:DeepSpeaker",
    "gru4rec": "embeddb.encoders.history:GRU4Rec",
    "hashing": "embeddb.encoders.hashing:Hashing",
    "item2vec": "embeddb.encoders.history:ItemVectors",
    "module": "embeddb.encoders.module:configured",
    "openai": "embeddb.encoders.openai:OpenAI",
    "reduced": "embeddb.encoders.reduced:Reduced",
    "sentence-transformer": "embeddb.encoders.sentence_transformer:SentenceTransformer",
    "transformer": "embeddb.encoders.transformer:Transformer",
    "vision": "embeddb.encoders.vision:Vision",
    "words": "embeddb.encoders.words:WordVectors",
    "x-vector": "embeddb.encoders.speaker:XVector",
}

_MEMBERS: Final = ("modality", "dim", "fingerprint", "config", "encode_documents", "encode_queries")
_MODEL_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve(encoder: Encoder | str | Mapping[str, Any], *, types: Mapping[str, Factory] | None = None) -> Encoder:
    """The encoder that is meant: the object itself, a type's name, a model's name, or a configuration.

    A string is first the name of a type that needs no arguments ("hashing"), then the name or folder of a
    sentence-transformers model ("all-MiniLM-L6-v2"). ``types``: more types, for this call. Raises EncoderNotFound,
    which names what is there, or EncoderError for an object that lacks a member of the protocol.
    """
    if isinstance(encoder, str):
        return _from_name(encoder, types or {})
    if isinstance(encoder, Mapping):
        return from_config(encoder, types=types)
    return _checked(encoder)


def from_config(config: Mapping[str, Any], *, types: Mapping[str, Factory] | None = None) -> Encoder:
    """The encoder of that configuration: its ``type`` names the class, the other keys are its arguments.

    ``types``: more types, for this call: an application's own encoders need no entry point then.
    """
    arguments = dict(config)
    name = arguments.pop("type", None)
    if not isinstance(name, str):
        raise EncoderNotFound(f"an encoder's configuration names its type, one of {_listed(types or {})}: {config!r}")
    factory = _find(name, types or {})
    if factory is None:
        raise _not_found(name, types or {})
    return _make(name, factory, arguments)


def _from_name(name: str, types: Mapping[str, Factory]) -> Encoder:
    factory = _find(name, types)
    if factory is not None:
        return _make(name, factory, {})
    known = {*BUILT_IN, *types, *_entry_points()}
    is_folder = Path(name).expanduser().is_dir()
    if not is_folder and (
        not _MODEL_NAME.fullmatch(name) or difflib.get_close_matches(name.lower(), known, cutoff=0.8)
    ):
        raise _not_found(name, types)
    return _make("sentence-transformer", _load(BUILT_IN["sentence-transformer"]), {"model": name})


def _find(name: str, types: Mapping[str, Factory]) -> Factory | None:
    if name in BUILT_IN:
        return _load(BUILT_IN[name])
    if name in types:
        return types[name]
    point = _entry_points().get(name)
    if point is None:
        return None
    try:
        return cast(Factory, point.load())
    except Exception as error:
        where = f"{point.value} of {point.dist.name}" if point.dist else point.value
        raise EncoderError(f"encoder {name!r} ({where}) cannot be imported: {error}") from error


def _load(target: str) -> Factory:
    module, _, attribute = target.partition(":")
    return cast(Factory, getattr(importlib.import_module(module), attribute))


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _make(name: str, factory: Factory, arguments: Mapping[str, Any]) -> Encoder:
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise EncoderError(f"encoder {name!r} cannot be made of {sorted(arguments)}: {error}") from None
    try:
        return _checked(factory(**arguments))
    except TypeError as error:  # a configuration is JSON, of any types
        raise EncoderError(f"encoder {name!r} cannot be made of {arguments}: {error}") from error


def _checked(encoder: Any) -> Encoder:
    """Not ``isinstance(encoder, Encoder)``: on Python 3.11 that reads ``dim`` and ``fingerprint``, and so loads."""
    absent = object()
    missing = [
        name
        for name in _MEMBERS
        if inspect.getattr_static(encoder, name, absent) is absent and not hasattr(encoder, name)
    ]
    if isinstance(encoder, type):
        raise EncoderError(f"{encoder.__name__} is a class: give an encoder, {encoder.__name__}(…)")
    if type(encoder).__hash__ is None:
        raise EncoderError(f"{encoder!r} cannot be a key: make its class @dataclass(frozen=True), or give it __hash__")
    if missing:
        raise EncoderError(f"{encoder!r} is no encoder: it has no {', '.join(missing)}")
    return cast(Encoder, encoder)


def _listed(types: Mapping[str, Factory]) -> str:
    return ", ".join(sorted({*BUILT_IN, *types, *_entry_points()}))


def _not_found(name: str, types: Mapping[str, Factory]) -> EncoderNotFound:
    near = difflib.get_close_matches(name.lower(), {*BUILT_IN, *types, *_entry_points()}, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return EncoderNotFound(
        f"there is no encoder {name!r}{hint} Here are {_listed(types)}, and sentence-transformers models by name or "
        f"folder. Install the package that offers it (entry point group {ENTRY_POINT_GROUP!r}), or give the object "
        "(to embeddb worker: --import package.module:Base)."
    )
