"""Vector indexes dropped before most of a table is embedded, and built again at the end: one build is much cheaper
than inserting row by row. What was dropped stands in the catalog, so a run that is cut off can be gone on with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from embeddb.catalog.blocks import blocks

_SQL = blocks("embeddb.worker", "rebuild.sql")


def drop_indexes(connection: Connection, embeddings: Sequence[int]) -> list[str]:
    """Drop the vector indexes of these embeddings, and note how to build them again; their names."""
    rows = connection.exec_driver_sql(_SQL["note"], {"embeddings": list(embeddings)}).all()
    for _, drop in rows:
        connection.exec_driver_sql(drop, execution_options={"no_parameters": True})
    return [name for name, _ in rows]


def rebuild_indexes(connection: Connection, embeddings: Sequence[int]) -> list[str]:
    """Build what was dropped; the names. The tables can be read meanwhile, and not written."""
    rows = connection.exec_driver_sql(_SQL["dropped"], {"embeddings": list(embeddings)}).all()
    for _, definition in rows:
        connection.exec_driver_sql(definition, execution_options={"no_parameters": True})
    connection.exec_driver_sql(_SQL["forget"], {"embeddings": list(embeddings)})
    return [name for name, _ in rows]
