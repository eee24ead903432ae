"""What was said in ``embedding_column``, before any table is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from embeddb.encoders import Encoder
from embeddb.metrics import METRICS, Metric, MetricName, Storage
from embeddb.sources.files import Files
from embeddb.spec import EmbeddingSpec, Mode, OnError, OnUpdate, VectorIndex


# Compared by identity, which also makes a type that holds it a constant part of SQLAlchemy's cache keys.
@dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """The arguments of one ``embedding_column``, or ``bit_column``; copies of the column share them."""

    sources: tuple[str, ...]
    encoder: Encoder
    metric_name: MetricName
    storage: Storage
    index: VectorIndex | None
    mode: Mode
    template: str | None
    on_error: OnError
    on_update: OnUpdate
    given_dim: int | None
    deferred: bool
    files: Files | None = None

    @classmethod
    def of(cls, spec: EmbeddingSpec, encoder: Encoder) -> Self:
        """The settings that declare ``spec``."""
        return cls(
            sources=spec.sources,
            encoder=encoder,
            metric_name=spec.metric,
            storage=spec.storage,
            index=spec.index,
            mode=spec.mode,
            template=spec.template,
            on_error=spec.on_error,
            on_update=spec.on_update,
            given_dim=spec.dim,
            deferred=True,
            files=None if spec.files is None else Files.from_dict(spec.files),
        )

    @property
    def metric(self) -> Metric:
        """The metric's row in the table of metrics."""
        return METRICS[self.metric_name]

    @cached_property
    def dim(self) -> int:
        """The dimensions given, or else the encoder's own, which may read its configuration file."""
        return self.encoder.dim if self.given_dim is None else self.given_dim


def settings_of(type_: Any) -> Settings | None:
    """The settings that a column's type carries, or None for one that was not declared."""
    settings = getattr(type_, "settings", None)
    return settings if isinstance(settings, Settings) else None
