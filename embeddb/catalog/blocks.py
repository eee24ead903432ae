"""SQL that embeddb owns: ``.sql`` files beside the code, whole or in named and described blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: ([a-z_]+)\n", re.MULTILINE)


@cache
def blocks(package: str, file: str) -> Mapping[str, str]:
    """The statements of a file by name. A block is ``-- name: …``, a comment that describes it, and its SQL."""
    _, *parts = _NAME.split(files(package).joinpath(file).read_text("utf-8"))
    return MappingProxyType(
        {name: body.strip().removesuffix(";") for name, body in zip(*[iter(parts)] * 2, strict=True)}
    )
