"""Functions by name, "package.module:function": what a configuration may have called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from embeddb.errors import EncoderError

#: Modules and packages, parted by commas, whose functions a configuration from a database may have called.
VARIABLE: Final = "EMBEDDB_ALLOW_FACTORIES"


def name_of(function: Any) -> str | None:
    """The name by which another process can import a function or class; None where there is none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<none>")
    if module in (None, "__main__") or getattr(sys.modules.get(module), name, None) is not function:
        return None
    return f"{module}:{name}"


def import_function(name: str) -> Callable[..., Any]:
    """The function of that name. Raises EncoderError where it is not there, or comes from another package.

    The latter so that allowing a package does not allow all that it imports.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise EncoderError(f"{name!r} is no importable package.module:function: {error}") from error
    home = getattr(found, "__module__", None) or ""
    if not callable(found) or home.partition(".")[0] != module.partition(".")[0]:
        raise EncoderError(f"{name!r} is no function of that package: name the module that defines it")
    return cast(Callable[..., Any], found)


def check_allowed(name: str, prefixes: Iterable[str] = ()) -> None:
    """Raise EncoderError unless the function's module is in ``prefixes`` or $EMBEDDB_ALLOW_FACTORIES, or inside one.

    A configuration comes from a database, and who may write it must not choose what code this process runs.
    """
    module = name.partition(":")[0]
    allowed = [prefix.strip() for prefix in (*prefixes, *os.environ.get(VARIABLE, "").split(",")) if prefix.strip()]
    if not any(module == prefix or module.startswith(f"{prefix}.") for prefix in allowed):
        raise EncoderError(
            f"this configuration wants {name!r} called, and {module!r} is not among the modules that may be: "
            f"{', '.join(allowed) or 'none'}. If you trust it, set {VARIABLE}={module}"
        )
