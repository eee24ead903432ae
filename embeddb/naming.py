"""Every name that embeddb derives, in one place.

Postgres cuts identifiers at 63 bytes without a word, so two long names could become one. A derived name that
is too long keeps its beginning and ends in a hash of the whole.
"""

from __future__ import annotations

import hashlib
from typing import Final

MAX_BYTES: Final = 63
CATALOG: Final = "embeddb"


def fit(name: str) -> str:
    """``name``, or a stable shorter one that Postgres will not cut."""
    raw = name.encode()
    if len(raw) <= MAX_BYTES:
        return name
    digest = hashlib.blake2b(raw, digest_size=4).hexdigest()
    return raw[: MAX_BYTES - 9].decode(errors="ignore") + "_" + digest


def embedding_name(table: str, column: str, schema: str | None = None) -> str:
    """``table.column`` or ``schema.table.column``: what a person calls an embedding."""
    return ".".join(part for part in (schema, table, column) if part)


def quoted(name: str, schema: str | None = None) -> str:
    """A table or an index as ``to_regclass`` and a cast to regclass read it: ``"schema"."name"``."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name) if part)


def index_name(table: str, column: str, method: str) -> str:
    """The vector index of a column, in the manner of SQLAlchemy's ``ix_`` names."""
    return fit(f"ix_{table}_{column}_{method}")
