"""What ``vector_column`` and ``bit_column`` share: columns that are searched, while their values are made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.types import TypeEngine

from embeddb.errors import EncoderError
from embeddb.metrics import MetricName, Storage
from embeddb.orm.extension import check_extension
from embeddb.orm.settings import Settings
from embeddb.spec import VectorIndex

AddIndex = Callable[[Column[Any], Settings], object]


class NoEncoder:
    """In an encoder's place. Compared by identity: two columns of as many dimensions are not one space."""

    modality: Any = None
    fingerprint: str = "elsewhere"
    config: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, dim: int, remedy: str) -> None:
        self.dim = dim
        self._remedy = remedy

    def __repr__(self) -> str:
        return f"no encoder ({self.dim} dimensions)"

    def encode_documents(self, inputs: Sequence[Any]) -> NoReturn:
        """Raises EncoderError."""
        raise EncoderError(f"a column whose values are made elsewhere has no encoder: {self._remedy}")

    encode_queries = encode_documents


def settings_elsewhere(
    dim: int,
    metric: MetricName,
    storage: Storage,
    index: VectorIndex | None,
    *,
    remedy: str = "search by a vector or by a row",
    deferred: bool = True,
) -> Settings:
    """Of a column of vectors that nothing here embeds. ``remedy``: what an error says that it is for."""
    return Settings(
        sources=(),
        encoder=NoEncoder(dim, remedy),
        metric_name=metric,
        storage=storage,
        index=index,
        mode="queued",
        template=None,
        on_error="raise",
        on_update="keep",
        given_dim=dim,
        deferred=deferred,
    )


_KEY: Final = "embeddb_elsewhere"


def searched_column(
    kind: TypeEngine[Any], settings: Settings, add_index: AddIndex, arguments: dict[str, Any]
) -> MappedColumn[Any]:
    """A mapped column of this type, nullable unless ``arguments`` say otherwise, whose index comes with its table."""
    mapped = mapped_column(kind, **{"nullable": True, **arguments})
    mapped.column.info[_KEY] = (settings, add_index)
    # Copies of the column (mixins, to_metadata) must join their tables in the same way: propagate.
    event.listen(mapped.column, "after_parent_attach", _join_table, propagate=True)
    return mapped


def _join_table(column: Column[Any], table: Table) -> None:
    settings, add_index = column.info[_KEY]
    if not event.contains(table, "before_create", check_extension):
        event.listen(table, "before_create", check_extension)
    if settings.index is not None:
        add_index(column, settings)
