"""A spec as the keyword arguments of an operation, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Final

from embeddb.migrate.render import Source, literal
from embeddb.spec import HNSW, EmbeddingSpec, IVFFlat, VectorIndex

_IDENTITY: Final = ("table", "column", "schema")
#: In the order in which a declaration is read.
_ORDER: Final = ("sources", "template", "encoder", "dim", "metric", "storage", "index")


def spec_of(table: str, column: str, schema: str | None, arguments: Mapping[str, Any]) -> EmbeddingSpec:
    """The spec that an operation's arguments mean."""
    values = {**arguments, "sources": tuple(arguments["sources"])}
    return EmbeddingSpec(table=table, column=column, schema=schema, **values)


def arguments_of(spec: EmbeddingSpec) -> dict[str, Any]:
    """The arguments that make ``spec``, without those that are as by default."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in _IDENTITY}
    defaults = {field.name: _default(field) for field in fields(spec)}
    kept = {name: value for name, value in values.items() if value != defaults[name]}
    return {name: kept[name] for name in (*_ORDER, *kept) if name in kept}


def changed(old: EmbeddingSpec, new: EmbeddingSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that differ, as they are to be and as they were."""
    names = [field.name for field in fields(new) if field.name not in _IDENTITY]
    differ = [name for name in (*_ORDER, *names) if name in names and getattr(old, name) != getattr(new, name)]
    differ = list(dict.fromkeys(differ))
    return {name: getattr(new, name) for name in differ}, {name: getattr(old, name) for name in differ}


def as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a spec's JSON has them."""
    values = dict(arguments)
    if isinstance(index := values.get("index"), HNSW | IVFFlat):
        values["index"] = {"method": index.method, **asdict(index)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def as_source(arguments: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arguments as ``render.call`` takes them."""
    return {f"{prefix}{name}": _source(value) for name, value in arguments.items()}


def _source(value: Any) -> Any:
    if isinstance(value, HNSW | IVFFlat):
        return Source(_index(value))
    if value is None:
        return Source("None")
    return dict(value) if isinstance(value, Mapping) else value


def _index(index: VectorIndex) -> str:
    given = [
        f"{field.name}={literal(getattr(index, field.name))}"
        for field in fields(index)
        if getattr(index, field.name) != field.default
    ]
    return f"embeddb.{type(index).__name__}({', '.join(given)})"


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
