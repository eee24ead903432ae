"""Fast encoders in a database: the table of their tokens, what there is, taking one out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, Integer, column, insert, table, text
from sqlalchemy.dialects.postgresql import JSONB

from embeddb.errors import CatalogError
from embeddb.insql import copying
from embeddb.insql.network import PAGE
from embeddb.insql.registered import forget_encoder

#: Bytes of a token that an index of Postgres takes.
LONGEST: Final = 2000
#: What the name of a part of a token begins with.
PART: Final = "\x01"


@dataclass(frozen=True, slots=True)
class Fast:
    """A fast encoder in the database.

    ``embedding``: whose rows it was distilled from, and the only one that it serves; None: word vectors, for all.
    ``tokenizer``: words, lexemes or ngrams. ``half``: in half precision. ``size``: bytes of its rows, indexes left
    out. ``agreement``: with the true encoder on held-out texts, as ``train.distil`` measured it; ``recipe``: how it was
    distilled.
    """

    id: int
    name: str
    encoder: int
    fingerprint: str
    embedding: str | None
    tokenizer: str
    tokens: int
    half: bool
    size: int
    agreement: Mapping[str, Any] | None
    recipe: Mapping[str, Any] | None


def installed_fast(connection: Connection) -> list[Fast]:
    """The fast encoders of this database, by name."""
    rows = connection.execute(
        text(
            "SELECT f.id, f.name, f.encoder, f.fingerprint, embeddb.name(f.embedding), f.tokenizer, f.tokens,"
            " EXISTS (SELECT FROM embeddb.fast_token t WHERE t.fast = f.id AND t.half IS NOT NULL),"
            " (SELECT coalesce(sum(pg_column_size(t.*)), 0)::bigint FROM embeddb.fast_token t WHERE t.fast = f.id),"
            " f.agreement, f.recipe FROM embeddb.fast_encoder f ORDER BY f.name"
        )
    )
    return [Fast(*row) for row in rows]


def remove_fast(connection: Connection, name: str) -> None:
    """Take a fast encoder out of the database. Raises CatalogError where there is none of that name."""
    gone = connection.scalar(
        text("DELETE FROM embeddb.fast_encoder WHERE name = :name RETURNING encoder"), {"name": name}
    )
    if gone is None:
        known = ", ".join(one.name for one in installed_fast(connection)) or "none"
        raise CatalogError(f"no fast encoder here is called {name!r}; there are: {known}")
    forget_encoder(connection, gone)


def largest(halves: bool) -> int:
    """Dimensions that fit on a page of Postgres; a long token then lies beside it."""
    return (PAGE - 200) // (2 if halves else 4)


def put_fast(connection: Connection, settings: Mapping[str, Any]) -> int:
    """A row of ``embeddb.fast_encoder`` in place of the one for the same encoder and embedding; its number."""
    taken = connection.scalar(
        text(
            "SELECT 1 FROM embeddb.fast_encoder WHERE name = :name"
            " AND (encoder, embedding) IS DISTINCT FROM (:encoder, cast(:embedding AS integer))"
        ),
        settings,
    )
    if taken is not None:
        raise CatalogError(f"another fast encoder here is called {settings['name']!r}: give this one another name")
    connection.execute(
        text(
            "DELETE FROM embeddb.fast_encoder"
            " WHERE (encoder, embedding) IS NOT DISTINCT FROM (:encoder, cast(:embedding AS integer))"
        ),
        settings,
    )
    kinds = {"recipe": JSONB, "agreement": JSONB}
    columns = [column(key, kinds.get(key)) for key in settings]
    fast = table("fast_encoder", column("id", Integer), *columns, schema="embeddb")
    return int(connection.scalar(insert(fast).values(**settings).returning(fast.c.id)) or 0)


def put_tokens(
    driver: DriverConnection[Any], number: int, tokens: Sequence[str], vectors: NDArray[np.float32], *, halves: bool
) -> None:
    """Tokens and their vectors, (tokens, dim), by COPY in binary; in the order of the index, which is dense then."""
    order = sorted(range(len(tokens)), key=lambda place: tokens[place].encode())
    tokens, vectors = [tokens[place] for place in order], vectors[order]
    fields = [copying.integer(number), copying.texts(tokens), copying.vectors(vectors, halves)]
    columns = ["fast", "token", "half" if halves else "vector"]
    copying.copy(driver, "fast_token", columns, copying.in_batches(fields, len(tokens)))
