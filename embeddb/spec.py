"""What was declared, as frozen values that travel as JSON: between code, catalog, worker and migration."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, Self, get_args

from embeddb.errors import DeclarationError
from embeddb.metrics import STORAGES, MetricName, Storage, check_metric
from embeddb.naming import embedding_name

Mode = Literal["inline", "queued"]
OnError = Literal["raise", "queue"]
OnUpdate = Literal["keep", "clear"]
Cast = Literal["halfvec", "binary"]

MODES: Final[tuple[str, ...]] = get_args(Mode)
# pgvector's own limits: https://github.com/pgvector/pgvector#indexing
MAX_STORED: Final[Mapping[str, int]] = {"vector": 16_000, "halfvec": 16_000}
MAX_INDEXED: Final[Mapping[str, int]] = {"vector": 2_000, "halfvec": 4_000, "bit": 64_000}


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise DeclarationError(f"{what} must be between {low} and {high}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HNSW:
    """A graph index (Malkov and Yashunin 2018): the best recall for its speed, the slower build.

    ``m``: links per node, 2 to 100. ``ef_construction``: candidates while building, 4 to 1000.
    ``cast``: index a half-precision or binary copy of the column instead of the column.
    ``prefix``: index the first so many dimensions only (Matryoshka models).
    With ``cast="binary"`` or ``prefix``, queries take more candidates and rerank them by the column itself.
    """

    method: ClassVar[Literal["hnsw"]] = "hnsw"
    m: int = 16
    ef_construction: int = 64
    cast: Cast | None = None
    prefix: int | None = None

    def __post_init__(self) -> None:
        _within("HNSW m", self.m, 2, 100)
        _within("HNSW ef_construction", self.ef_construction, 4, 1000)
        if self.ef_construction < 2 * self.m:
            raise DeclarationError(
                f"HNSW ef_construction ({self.ef_construction}) must be at least 2 × m ({2 * self.m}): "
                "raise ef_construction or lower m"
            )
        _check_variant(self)

    @property
    def options(self) -> dict[str, int]:
        """The index's WITH options."""
        return {"m": self.m, "ef_construction": self.ef_construction}


@dataclass(frozen=True, slots=True, kw_only=True)
class IVFFlat:
    """An inverted file: builds fast and small, but only over rows that are already there.

    ``lists``: clusters, 1 to 32768; pgvector's advice is rows / 1000 up to a million rows, sqrt(rows) beyond.
    """

    method: ClassVar[Literal["ivfflat"]] = "ivfflat"
    lists: int = 100
    cast: Cast | None = None
    prefix: int | None = None

    def __post_init__(self) -> None:
        _within("IVFFlat lists", self.lists, 1, 32_768)
        _check_variant(self)

    @property
    def options(self) -> dict[str, int]:
        """The index's WITH options."""
        return {"lists": self.lists}


VectorIndex = HNSW | IVFFlat
_METHODS: Final[Mapping[str, type[HNSW] | type[IVFFlat]]] = {"hnsw": HNSW, "ivfflat": IVFFlat}


def _check_variant(index: VectorIndex) -> None:
    if index.cast not in (None, "halfvec", "binary"):
        raise DeclarationError(f"an index cast is 'halfvec' or 'binary', not {index.cast!r}")
    if index.prefix is not None and index.prefix < 1:
        raise DeclarationError(f"an index prefix must be at least 1 dimension, not {index.prefix}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpec:
    """One declared embedding: which columns become which vector, how, and how it is searched.

    ``sources``: database column names, in order. ``template``: how several become one text, or None for the
    default join. ``encoder``: the encoder's configuration (never a secret). ``dim``: the vector's dimensions.
    ``files``: which files may be read where the source names one, as ``embeddb.Files`` tells it in JSON.
    """

    table: str
    column: str
    sources: tuple[str, ...]
    encoder: Mapping[str, Any]
    dim: int
    schema: str | None = None
    template: str | None = None
    metric: MetricName = "cosine"
    storage: Storage = "vector"
    index: VectorIndex | None = field(default_factory=HNSW)
    mode: Mode = "inline"
    on_error: OnError = "raise"
    on_update: OnUpdate = "keep"
    files: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_choices(self.metric, self.storage, self.index, self.mode, self.on_error, self.on_update)
        if not self.sources:
            raise DeclarationError(f"{self.name}: name at least one source column")
        _within(f"{self.name}: {self.storage} dimensions", self.dim, 1, MAX_STORED[self.storage])
        if self.template is not None:
            check_template(self.template, self.sources)
        if self.index is not None:
            check_indexable(self.index, self.storage, self.dim, self.name)

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def name(self) -> str:
        """``table.column`` or ``schema.table.column``."""
        return embedding_name(self.table, self.column, self.schema)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["sources"] = list(self.sources)
        values["encoder"] = dict(self.encoder)
        values["index"] = None if self.index is None else {"method": self.index.method, **asdict(self.index)}
        if self.files is None:
            del values["files"]
        else:
            values["files"] = dict(self.files)
        return values

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal specs give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec of ``to_dict``; unknown keys are a DeclarationError, so a newer catalog is never misread."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise DeclarationError(f"unknown keys in an embedding's spec: {', '.join(sorted(unknown))}")
        index = values.get("index")
        return cls(**{**values, "sources": tuple(values["sources"]), "index": index and _index_from(index)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec of ``to_json``."""
        return cls.from_dict(json.loads(text))


def _index_from(values: Mapping[str, Any]) -> VectorIndex:
    options = dict(values)
    method = options.pop("method", None)
    if method not in _METHODS:
        raise DeclarationError(f"unknown index method {method!r}: choose one of {', '.join(_METHODS)}")
    return _METHODS[method](**options)


def check_choices(metric: str, storage: str, index: object, mode: str, on_error: str, on_update: str) -> None:
    """Refuse a value that is none of its argument's choices, and list them."""
    for what, value, choices in (
        ("storage", storage, STORAGES),
        ("mode", mode, MODES),
        ("on_error", on_error, get_args(OnError)),
        ("on_update", on_update, get_args(OnUpdate)),
    ):
        if value not in choices:
            raise DeclarationError(f"{what} is one of {', '.join(map(repr, choices))}, not {value!r}")
    if index is not None and not isinstance(index, VectorIndex):
        raise DeclarationError(f"index is HNSW(), IVFFlat() or None, not {index!r}")
    check_metric(metric, storage, getattr(index, "method", None), getattr(index, "cast", None))


def check_template(template: str, sources: tuple[str, ...]) -> None:
    """A template names sources only, as ``{name}``: no attributes, indexes, conversions or positions."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DeclarationError(f"template {template!r} cannot be read: {error}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, format_spec, conversion in parts:
        if name is not None and (name not in sources or format_spec or conversion):
            raise DeclarationError(
                f"template {template!r} has the field {{{name}}}; a field is the plain name of a source, "
                f"one of {', '.join(sources)}"
            )
    if set(names) != set(sources):
        unused = ", ".join(name for name in sources if name not in names)
        raise DeclarationError(f"template {template!r} leaves out {unused}: name every source, or drop it")


def rename_fields(template: str | None, names: Sequence[str], to: Sequence[str]) -> str | None:
    """The template with other names for its sources, which are given in the same order."""
    if template is None:
        return None
    renamed = dict(zip(names, to, strict=True))
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            parts.append("{" + renamed[name] + "}")
    return "".join(parts)


def check_indexable(index: VectorIndex, storage: Storage, dim: int, name: str) -> None:
    """Refuse an index that pgvector would refuse, and say which variant it would take."""
    if index.prefix is not None and index.prefix >= dim:
        raise DeclarationError(f"{name}: an index prefix of {index.prefix} is not below its {dim} dimensions")
    indexed = index.prefix or dim
    kind = "bit" if index.cast == "binary" else index.cast or storage
    if indexed > MAX_INDEXED[kind]:
        raise DeclarationError(
            f"{name}: {index.method} cannot index {indexed} dimensions of {kind} (at most {MAX_INDEXED[kind]}): "
            'use storage="halfvec" or an index with cast="halfvec" (up to 4000), cast="binary" (up to 64000), '
            "or a prefix"
        )
