"""What every encoder of this package has in common: a frozen dataclass of its settings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from embeddb.errors import MissingExtra

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Base = DataclassInstance
else:
    _Base = object


class Settings(_Base):
    """A base for frozen dataclasses (with ``repr=False``): ``config`` and ``repr`` hold what is not the default.

    So a setting that is added later changes neither the configurations in a catalog nor a single line of a log.
    """

    __slots__ = ()
    type: ClassVar[str]

    def _said(self) -> dict[str, Any]:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field.name: said[field.name] for field in fields(self) if said[field.name] != field.default}

    @property
    def config(self) -> Mapping[str, Any]:
        """The type and every setting that is not the default, as JSON."""
        return {"type": self.type, **self._said()}

    def __repr__(self) -> str:
        required = {field.name for field in fields(self) if field.default is MISSING}
        said = {name: _short(value) for name, value in self._said().items()}
        shown = [value if name in required else f"{name}={value}" for name, value in said.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: Any) -> str:
    """As it is written, in one line: a network's layers would bury what an error says about it."""
    written = repr(value)
    return f"<{type(value).__qualname__}>" if "\n" in written else written


def require(module: str, extra: str, encoder: str) -> ModuleType:
    """Import a package that only some encoders need; MissingExtra says which extra of embeddb brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{encoder} needs {module}: pip install 'embeddb[{extra}]' ({error})") from error
