"""Whether two configurations are of one encoder that is run in two ways: then its vectors are the same.

What an encoder is stands in its fingerprint. A batch's size, a server's address, the device are in none: a change of
those is no change of encoder, and embeds nothing anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from embeddb.encoders.registry import BUILT_IN

#: Of the machine: one application may have another on each.
LOCAL: Final = frozenset({"device", "local_files_only"})
#: How and where vectors are made. The catalog's function ``embeddb.identity_of`` leaves out the same.
RUNNING: Final = LOCAL | {
    "api_key_env",
    "base_url",
    "batch_characters",
    "batch_size",
    "concurrency",
    "encoding_format",
    "max_wait",
    "timeout",
}


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the vectors. Of a type that is not built in everything may."""
    return _without(config, RUNNING)


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same on every machine."""
    return _without(config, LOCAL)


def same_encoder(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations make the same vectors."""
    return identity(one) == identity(other)


def _without(config: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    if config.get("type") not in BUILT_IN:
        return dict(config)
    return {
        key: _without(value, names) if key == "encoder" and isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in names
    }
