"""Distilled encoders in a database: rows that were embedded, texts as tokens, and token vectors put in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy import Connection, text

from embeddb.catalog.errors import catalog_errors
from embeddb.catalog.install import require
from embeddb.errors import EncoderError
from embeddb.insql import copying
from embeddb.insql.fast import LONGEST, PART, Fast, installed_fast, largest, put_fast, put_tokens
from embeddb.insql.registered import forget_encoder
from embeddb.sources.text import compose
from embeddb.spec import EmbeddingSpec
from embeddb.vectors.wire import ELEMENT, HEADER

Matrix = NDArray[np.float32]
#: Texts that are sent, and rows that are fetched, at a time.
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How Postgres makes tokens of a text, in fitting and in use.

    "lexemes": those of the text search configuration ``config``, in order. "ngrams": pieces of ``shortest`` to
    ``longest`` characters of each word, for languages without stemmers or spaces; ``config`` is None then.
    """

    kind: Literal["lexemes", "ngrams"]
    config: str | None
    shortest: int
    longest: int

    @property
    def settings(self) -> dict[str, Any]:
        """Members of ``embeddb.fast_encoder``."""
        return {"tokenizer": self.kind, "config": self.config, "shortest": self.shortest, "longest": self.longest}


@dataclass(frozen=True, slots=True)
class Subject:
    """An embedding whose encoder is distilled, by the names of today. ``fingerprint``: None where none is known yet."""

    id: int
    name: str
    encoder: int
    config: Mapping[str, Any]
    fingerprint: str | None
    table: sql.Identifier
    column: str
    keys: Sequence[str]
    sources: Sequence[str]
    send: sql.Identifier
    spec: EmbeddingSpec


def subject(connection: Connection, name: str) -> Subject:
    """The embedding of that name. Raises CatalogError where there is none, EncoderError where it is not of texts."""
    require(connection)
    with catalog_errors():
        row = connection.execute(
            text(
                "SELECT v.id, v.name, v.encoder_id, v.encoder, v.fingerprint, v.schema, v.table, v.column, v.keys,"
                " v.sources, v.source_types, v.storage, v.spec::text, n.nspname FROM embeddb.embeddings v"
                " CROSS JOIN pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace"
                " WHERE v.id = embeddb.find(:name) AND x.extname = 'vector'"
            ),
            {"name": name},
        ).one()
    odd = [f"{s} ({t})" for s, t in zip(row.sources, row.source_types, strict=True) if t not in _TEXTS]
    if odd:
        raise EncoderError(f"{row.name} cannot be distilled: it is not made of text, but of {', '.join(odd)}")
    return Subject(
        id=row.id,
        name=row.name,
        encoder=row.encoder_id,
        config=row.encoder,
        fingerprint=row.fingerprint,
        table=sql.Identifier(row.schema, row.table),
        column=row.column,
        keys=row.keys,
        sources=row.sources,
        send=sql.Identifier(row.nspname, f"{row.storage}_send"),
        spec=EmbeddingSpec.from_json(row.spec),
    )


_TEXTS: Final = ("text", "character varying", "character")


def embedded(connection: Connection, what: Subject) -> int:
    """How many rows have a vector."""
    counted = sql.SQL("SELECT count({}) FROM {}").format(sql.Identifier(what.column), what.table)
    row = copying.driver(connection).execute(counted).fetchone()
    return int(row[0]) if row else 0


def read_rows(connection: Connection, what: Subject, limit: int, seed: int) -> tuple[list[str], Matrix]:
    """The texts of at most ``limit`` embedded rows, drawn by a hash of their keys, and their vectors, (rows, dim)."""
    statement = sql.SQL(
        "SELECT {sources}, {send}({column}) FROM {table} t WHERE {column} IS NOT NULL"
        " ORDER BY hashtextextended(ROW({keys})::text, {seed}), {keys} LIMIT {limit}"
    ).format(
        sources=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", s)) for s in what.sources),
        send=what.send,
        column=sql.Identifier("t", what.column),
        table=what.table,
        keys=sql.SQL(", ").join(sql.Identifier("t", key) for key in what.keys),
        seed=seed,
        limit=limit,
    )
    texts: list[str] = []
    vectors: list[bytes] = []
    with copying.driver(connection).cursor(binary=True) as cursor:
        for row in cursor.execute(statement):
            composed = compose(row[:-1], what.spec.sources, what.spec.template)
            if composed is not None:
                texts.append(composed)
                vectors.append(row[-1])
    element = ELEMENT[what.spec.storage]
    packed = np.frombuffer(b"".join(vectors), np.dtype([("head", f"V{HEADER.size}"), ("v", element, (what.spec.dim,))]))
    return texts, packed["v"].astype(np.float32)


def tokenize(connection: Connection, tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[str]]:
    """The tokens of each text, by the function that ``embeddb.embed`` uses."""
    statement = text(
        "SELECT embeddb.fast_tokens("
        "jsonb_populate_record(NULL::embeddb.fast_encoder, cast(:settings AS jsonb)), u.given)"
        " FROM unnest(cast(:texts AS text[])) WITH ORDINALITY AS u (given, place) ORDER BY u.place"
    )
    settings = json.dumps(tokenizer.settings)
    with catalog_errors():
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            yield from connection.scalars(statement, {"settings": settings, "texts": some})


def default_config(connection: Connection) -> str:
    """The database's text search configuration, with its schema."""
    return resolve_config(connection, str(connection.scalar(text("SHOW default_text_search_config"))))


def resolve_config(connection: Connection, config: str) -> str:
    """The configuration with its schema, as a function with a pinned search path needs it. EncoderError for none."""
    found = connection.execute(
        text(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.cfgname)"
            " FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace"
            " WHERE pg_catalog.pg_ts_config_is_visible(c.oid) AND c.cfgname = :config"
            " OR n.nspname || '.' || c.cfgname = :config"
        ),
        {"config": config},
    ).scalar()
    if found is None:
        known = connection.scalars(text("SELECT cfgname FROM pg_catalog.pg_ts_config ORDER BY 1")).all()
        raise EncoderError(f"there is no text search configuration {config!r}, only {', '.join(known)}")
    return str(found)


def put_distilled(
    connection: Connection,
    what: Subject,
    fingerprint: str,
    tokenizer: Tokenizer,
    tokens: Sequence[str],
    vectors: Matrix,
    *,
    length: float,
    half: bool,
    recipe: Mapping[str, Any],
    agreement: Mapping[str, Any],
) -> Fast:
    """Put token vectors, (tokens, dim), in place of those that this embedding has, for its encoder or an earlier one.

    ``embeddb.embed`` has the new ones with the caller's commit. The names of parts of tokens begin with ``fast.PART``.
    """
    if vectors.shape[1] > largest(half):
        raise EncoderError(f"{what.name}: token vectors of {vectors.shape[1]} dimensions do not fit on a page")
    kept = [place for place, token in enumerate(tokens) if len(token.encode()) <= LONGEST]
    connection.execute(
        text("UPDATE embeddb.encoder SET fingerprint = :fingerprint WHERE id = :encoder AND fingerprint IS NULL"),
        {"encoder": what.encoder, "fingerprint": fingerprint},
    )
    number = put_fast(
        connection,
        {
            "encoder": what.encoder,
            "embedding": what.id,
            "fingerprint": fingerprint,
            "name": f"{what.name} ({fingerprint[:8]})",
            **tokenizer.settings,
            "unknown": "parts" if any(token.startswith(PART) for token in tokens) else "skip",
            "component": False,
            "length": length,
            "tokens": sum(not token.startswith(PART) for token in tokens),
            "recipe": dict(recipe),
            "agreement": dict(agreement),
        },
    )
    put_tokens(copying.driver(connection), number, [tokens[n] for n in kept], vectors[kept], halves=half)
    connection.exec_driver_sql("ANALYZE embeddb.fast_token")
    _forget_others(connection, what)
    return next(fast for fast in installed_fast(connection) if fast.id == number)


def _forget_others(connection: Connection, what: Subject) -> None:
    """Those that the embedding had for earlier encoders."""
    gone = connection.scalars(
        text("DELETE FROM embeddb.fast_encoder WHERE embedding = :id AND encoder <> :encoder RETURNING encoder"),
        {"id": what.id, "encoder": what.encoder},
    )
    for encoder in gone.all():
        forget_encoder(connection, encoder)
