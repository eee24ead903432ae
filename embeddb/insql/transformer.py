"""Installing a transformer into a database, so that SQL alone embeds with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, text

from embeddb.catalog.install import require
from embeddb.encoders.sentence_transformer import SentenceTransformer
from embeddb.errors import CatalogError, EncoderError
from embeddb.insql import copying
from embeddb.insql.network import NEURON, PAGE, ROW, Network
from embeddb.insql.network import read as read_network
from embeddb.insql.registered import encoder_id, forget_encoder
from embeddb.insql.tokens import Vocabulary
from embeddb.insql.tokens import read as read_vocabulary

#: Texts that every installation is tried with before it stays.
_PROBES: Final = (
    "planes that land on water",
    "",
    "Ünïcödé, naïve façade: 東京 ¿qué? straße İstanbul – it's 20% off!",
    "What similarity laws must be obeyed when constructing aeroelastic models of heated high-speed aircraft? " * 2,
)
#: The largest difference of an element, and the lowest cosine, that a probe may have to the encoder.
_TOLERANCE: Final = 2e-5
_HALF_COSINE: Final = 0.9999


@dataclass(frozen=True, slots=True)
class Installed:
    """A transformer in the database. ``size``: bytes of its rows, indexes left out. ``half``: in half precision."""

    name: str
    encoder: int
    fingerprint: str
    half: bool
    size: int


def install_transformer(
    connection: Connection, encoder: SentenceTransformer, *, half: bool = False, name: str | None = None
) -> Installed:
    """Put the encoder's transformer into the database: weights, tokens, settings. In the caller's transaction.

    Then ``embeddb.embed`` embeds queries of every embedding that has this encoder, in SQL alone. ``half``: keep the
    weights in half precision, which halves their size. ``name``: what to call it, by default the model's name. An
    older installation of the same encoder is replaced. Every installation is tried: a few texts have to come out as
    from the encoder itself (2e-5 at most between elements; in half precision a cosine of 0.9999).

    Raises EncoderError where the model has no SQL, or does not come out right; CatalogError or a child of it where
    the database is not ready.
    """
    require(connection)
    driver = copying.driver(connection)
    library, query_prompt, document_prompt = encoder.opened()
    modules = _modules(encoder, library)
    network = read_network(modules.transformer, half)
    vocabulary = read_vocabulary(modules.tokenizer)
    if len(network.tokens) <= max(number for number, _, _ in vocabulary.tokens):
        raise EncoderError(f"{encoder!r}: its tokenizer has tokens without a vector")
    longest = min(modules.max_tokens, network.positions)
    settings: dict[str, Any] = {
        "name": name or encoder.model.rstrip("/").rpartition("/")[2],
        "fingerprint": encoder.fingerprint,
        "layers": network.layers,
        "heads": network.heads,
        "width": network.width,
        "slices": network.slices,
        "slice_width": network.slice_width,
        "activation": network.activation,
        "epsilon": network.epsilon,
        "pooling": modules.pooling,
        "normalized": modules.normalized,
        "truncate_to": encoder.truncate_dim,
        "scaled": encoder.truncate_dim is not None if encoder.normalize is None else encoder.normalize,
        "max_tokens": longest,
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
        **{key: getattr(vocabulary, key) for key in (
            "tokenizer", "ascii_from", "ascii_to", "refused", "special", "prefix", "longest", "unknown"
        )},
        "before_text": list(vocabulary.before_text),
        "after_text": list(vocabulary.after_text),
    }  # fmt: skip
    number = encoder_id(connection, encoder.config, encoder.dim, encoder.fingerprint)
    connection.execute(text("DELETE FROM embeddb.transformer WHERE encoder = :encoder"), {"encoder": number})
    taken = connection.scalar(text("SELECT encoder FROM embeddb.transformer WHERE name = :name"), settings)
    if taken is not None:
        raise CatalogError(f"another transformer here is called {settings['name']!r}: give this one another name")
    connection.execute(
        text(
            "INSERT INTO embeddb.transformer SELECT (jsonb_populate_record(NULL::embeddb.transformer,"
            " cast(:settings AS jsonb) || jsonb_build_object('installed_at', now()))).*"
        ),
        {"settings": json.dumps({"encoder": number, **settings})},
    )
    _copy_weights(driver, number, network, half)
    _copy_tokens(driver, number, network, vocabulary, half)
    for table in ("weight", "token", "merge", "character"):
        connection.exec_driver_sql(f"ANALYZE embeddb.transformer_{table}")
    _try_out(connection, encoder, number, half)
    return next(found for found in installed(connection) if found.encoder == number)


def installed(connection: Connection) -> list[Installed]:
    """The transformers of this database, by name."""
    rows = connection.execute(
        text(
            "SELECT t.name, t.encoder, t.fingerprint,"
            " EXISTS (SELECT FROM embeddb.transformer_weight w WHERE w.encoder = t.encoder AND w.halves IS NOT NULL),"
            " (SELECT sum(pg_column_size(w.*)) FROM embeddb.transformer_weight w WHERE w.encoder = t.encoder)"
            " + (SELECT sum(pg_column_size(k.*)) FROM embeddb.transformer_token k WHERE k.encoder = t.encoder)"
            " FROM embeddb.transformer t ORDER BY t.name"
        )
    )
    return [Installed(name, number, fingerprint, half, int(size)) for name, number, fingerprint, half, size in rows]


def remove_transformer(connection: Connection, name: str) -> None:
    """Take a transformer out of the database. Raises CatalogError where there is none of that name."""
    gone = connection.scalar(
        text("DELETE FROM embeddb.transformer WHERE name = :name RETURNING encoder"), {"name": name}
    )
    if gone is None:
        known = ", ".join(one.name for one in installed(connection)) or "none"
        raise CatalogError(f"no transformer here is called {name!r}; there are: {known}")
    forget_encoder(connection, gone)


@dataclass(frozen=True, slots=True)
class _Modules:
    transformer: Any
    tokenizer: Any
    max_tokens: int
    pooling: str
    normalized: bool


def _modules(encoder: SentenceTransformer, library: Any) -> _Modules:
    """The parts of a sentence-transformers model. Raises EncoderError where one of them has no SQL."""
    names = [type(module).__name__ for module in library]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise EncoderError(
            f"{encoder!r} cannot run in SQL: it is made of {', '.join(names)}, and only Transformer, Pooling and "
            "Normalize have SQL. Distil it into a fast encoder instead."
        )
    transformer, pooling = library[0], library[1]
    if pooling.pooling_mode not in ("mean", "cls", "max") or not getattr(pooling, "include_prompt", True):
        raise EncoderError(f"{encoder!r} cannot run in SQL: pooling by {pooling.pooling_mode!r} has no SQL")
    return _Modules(
        transformer=transformer.auto_model,
        tokenizer=library.tokenizer,
        max_tokens=int(library.max_seq_length),
        pooling=pooling.pooling_mode,
        normalized=len(names) == 3,
    )


def _copy_weights(driver: Any, number: int, network: Network, half: bool) -> None:
    element = 2 if half else 4
    oid = _type_oid(driver, "halfvec" if half else "vector")

    def rows() -> Iterator[bytes]:
        for part in network.parts:
            # Postgres aligns the vectors of an array to four bytes.
            size = math.ceil((part.matrix.shape[1] * element + NEURON) / 4) * 4
            per_row = 1 if part.name == "position" else max(1, (PAGE - ROW) // size)
            packed = copying.pages(part.matrix, per_row, oid, half)
            # A position is looked up by its number, from 1.
            places = np.arange(len(packed), dtype=np.int64) + 1
            fields = [
                copying.integer(number),
                copying.smallint(part.layer),
                copying.texts([part.name] * len(packed)),
                copying.smallint(part.slice),
                copying.integer(places),
                packed,
            ]
            yield from copying.in_batches(fields, len(packed))

    columns = ["encoder", "layer", "part", "slice", "place", "halves" if half else "neurons"]
    copying.copy(driver, "transformer_weight", columns, rows())


def _copy_tokens(driver: Any, number: int, network: Network, vocabulary: Vocabulary, half: bool) -> None:
    tokens = [row for row in vocabulary.tokens if row[0] != network.unplaced]
    ids = np.array([number for number, _, _ in tokens])
    fields = [
        copying.integer(number),
        copying.integer(ids),
        copying.texts([token for _, token, _ in tokens]),
        copying.boolean([whole for _, _, whole in tokens]),
        copying.vectors(network.tokens[ids], half),
    ]
    columns = ["encoder", "id", "token", "whole", "half" if half else "vector"]
    copying.copy(driver, "transformer_token", columns, copying.in_batches(fields, len(ids)))
    firsts, seconds = [first for first, _ in vocabulary.merges], [second for _, second in vocabulary.merges]
    fields = [copying.integer(number), copying.texts(firsts), copying.texts(seconds),
              copying.integer(np.arange(len(firsts)))]  # fmt: skip
    columns = ["encoder", "first", "second", "rank"]
    copying.copy(driver, "transformer_merge", columns, copying.in_batches(fields, len(firsts)))
    characters = vocabulary.characters
    fields = [
        copying.integer(number),
        copying.integer(np.array([first for first, _, _ in characters], np.int64)),
        copying.integer(np.array([last for _, last, _ in characters], np.int64)),
        copying.texts([becomes for _, _, becomes in characters]),
    ]
    columns = ["encoder", "first", "last", "becomes"]
    copying.copy(driver, "transformer_character", columns, copying.in_batches(fields, len(characters)))


def _type_oid(driver: Any, name: str) -> int:
    row = driver.execute(
        "SELECT t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_extension x ON x.extnamespace = t.typnamespace"
        " WHERE x.extname = 'vector' AND t.typname = %s",
        [name],
    ).fetchone()
    return int(row[0])


def _try_out(connection: Connection, encoder: SentenceTransformer, number: int, half: bool) -> None:
    for role, vectors in (
        ("query", encoder.encode_queries(_PROBES)),
        ("document", encoder.encode_documents(_PROBES)),
    ):
        for probe, expected in zip(_PROBES, vectors, strict=True):
            said = connection.scalar(
                text(
                    "SELECT embeddb.transformer_embed(t, :probe,"
                    " CASE :role WHEN 'query' THEN t.query_prompt ELSE t.document_prompt END)::text"
                    " FROM embeddb.transformer t WHERE t.encoder = :encoder"
                ),
                {"probe": probe, "role": role, "encoder": number},
            )
            found = np.array(json.loads(said), np.float32)
            apart = float(np.abs(found - expected).max())
            cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
            if not (cosine >= _HALF_COSINE if half else apart <= _TOLERANCE):
                raise EncoderError(
                    f"{encoder!r} does not come out right in SQL: {probe!r} differs by {apart:.2g}, cosine {cosine:.6f}"
                )
