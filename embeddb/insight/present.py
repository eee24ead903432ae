"""The index that a column has in the database, as it would be declared: for columns that nobody registered."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import Connection

from embeddb.catalog.blocks import blocks
from embeddb.metrics import METRICS, MetricName
from embeddb.spec import HNSW, Cast, IVFFlat, VectorIndex

_SQL: Final = blocks("embeddb.insight", "advise.sql")
_PREFIX: Final = re.compile(r"subvector\(.*, 1, (\d+)\)")


def index_present(connection: Connection, table: str, column: str) -> tuple[MetricName, VectorIndex | None]:
    """The metric and the index of a table, quoted, and its column; cosine where no index tells, or bits do."""
    row = connection.exec_driver_sql(_SQL["index"], {"table": table, "column": column}).one_or_none()
    if row is None:
        return "cosine", None
    metric: Any = next((name for name, known in METRICS.items() if row.opclass in known.opclass.values()), "cosine")
    cast: Cast | None = None
    if "binary_quantize(" in row.expression:
        metric, cast = "cosine", "binary"
    elif "::halfvec(" in row.expression or ")::halfvec" in row.expression:
        cast = "halfvec"
    prefix = _PREFIX.search(row.expression)
    options: dict[str, Any] = {name: int(value) for name, _, value in (one.partition("=") for one in row.options)}
    made = HNSW if row.method == "hnsw" else IVFFlat
    return metric, made(cast=cast, prefix=int(prefix[1]) if prefix else None, **options)
