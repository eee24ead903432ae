"""Word vectors in a database: every word's vector a row, and what the tokeniser has to know of Unicode."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, text

from embeddb.catalog.install import require
from embeddb.encoders.word_tokens import word_ranges
from embeddb.encoders.words import WordVectors
from embeddb.errors import EncoderError
from embeddb.insql import copying
from embeddb.insql.fast import LONGEST, PART, Fast, installed_fast, largest, put_fast, put_tokens
from embeddb.insql.registered import encoder_id
from embeddb.insql.tokens import Range, joined

#: Vectors that are converted at a time.
_AT_ONCE: Final = 20_000
#: Marks that tell whether a character is one too: marks below the letter go before those above, and let them compose.
_ACUTE, _BELOW = "\u0301", "\u0316"
_TREATED: Final = text(
    "SELECT p, normalize(chr(p), NFKD), normalize('a' || chr(p) || :acute, NFC), normalize(chr(p) || :below, NFC)"
    " FROM unnest(cast(:points AS integer[])) AS p"
)


def install_words(connection: Connection, encoder: WordVectors, *, name: str | None = None) -> Fast:
    """Put word vectors into the database, with their weights and their common component. In the caller's transaction.

    Then ``embeddb.embed`` embeds for every embedding with this encoder, equal to ``encoder.encode_queries`` for every
    text, but for texts with characters that are newer than the server's Unicode: those are refused. An older
    installation of the same encoder is replaced.

    Raises EncoderError where a vector does not fit on a page (2,000 dimensions), or a word in an index (2,000 bytes);
    CatalogError or a child of it where the database is not ready.
    """
    require(connection)
    driver = copying.driver(connection)
    table, subwords = encoder.table, encoder.loaded.subwords if encoder.unknown == "subwords" else None
    if subwords is not None and not len(subwords.vectors):
        subwords = None
    if table.vectors.shape[1] >= largest(halves=False):
        raise EncoderError(f"{encoder!r}: vectors of {table.vectors.shape[1]} dimensions do not fit on a page")
    # Others are never asked for: no text has them as a word.
    places = [n for n, word in enumerate(table.words) if all(map(_in_words, word))]
    words = [table.words[n] for n in places]
    if long := [word for word in words if len(word.encode()) > LONGEST]:
        raise EncoderError(
            f"{encoder!r}: {long[0][:40]!r}… is a word of more than {LONGEST} bytes: Postgres has no index on it"
        )
    number = put_fast(
        connection,
        {
            "encoder": encoder_id(connection, encoder.config, encoder.dim, encoder.fingerprint),
            "embedding": None,
            "fingerprint": encoder.fingerprint,
            "name": name or Path(encoder.model).stem,
            "tokenizer": "words",
            "shortest": subwords.shortest if subwords is not None else None,
            "longest": subwords.longest if subwords is not None else None,
            "buckets": len(subwords.vectors) if subwords is not None else None,
            "unknown": "error" if encoder.unknown == "error" else "parts" if subwords is not None else "skip",
            "component": table.component is not None,
            "length": 1.0 if encoder.normalize else None,
            "tokens": len(words),
        },
    )
    _put_vectors(driver, number, dict(zip(words, places, strict=True)), table.vectors, table.component)
    if subwords is not None:
        buckets = {f"{PART}{bucket}": bucket for bucket in range(len(subwords.vectors))}
        _put_vectors(driver, number, buckets, subwords.vectors, table.component)
    for stage, ranges in ((1, _before(connection)), (2, _after())):
        _put_characters(driver, number, stage, ranges)
    connection.exec_driver_sql("ANALYZE embeddb.fast_token, embeddb.fast_character")
    return next(found for found in installed_fast(connection) if found.id == number)


def _put_vectors(
    driver: DriverConnection[Any], number: int, places: Mapping[str, int], vectors: NDArray[np.float32],
    component: NDArray[np.float32] | None,
) -> None:  # fmt: skip
    """The vectors at these places, a few at a time: a vocabulary's may be half of the memory."""
    tokens = sorted(places, key=str.encode)
    for start in range(0, len(tokens), _AT_ONCE):
        some = tokens[start : start + _AT_ONCE]
        put_tokens(driver, number, some, _apart(vectors[[places[token] for token in some]], component), halves=False)


def _apart(vectors: NDArray[np.float32], component: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Vectors less their part along the component, and that part as one more dimension."""
    if component is None:
        return vectors
    exact = vectors.astype(float)
    along = exact @ component.astype(float)
    return np.concatenate([exact - np.outer(along, component), along[:, None]], axis=1).astype(np.float32)


@lru_cache(maxsize=1)
def _word_characters() -> frozenset[int]:
    return frozenset(point for first, last in word_ranges() for point in range(first, last + 1))


def _in_words(character: str) -> bool:
    return ord(character) in _word_characters()


@lru_cache(maxsize=1)
def _after() -> tuple[Range, ...]:
    """What becomes of characters in NFKC: case folded, and a blank for what parts words."""

    def pairs() -> Iterator[tuple[int, str | None]]:
        for point in range(0x80, sys.maxunicode + 1):
            if not 0xD800 <= point < 0xE000:
                becomes = "".join(c if _in_words(c) else " " for c in chr(point).casefold())
                if becomes != chr(point):
                    yield point, becomes

    return tuple(joined(pairs()))


def _before(connection: Connection) -> tuple[Range, ...]:
    """What becomes of characters before Postgres normalises them.

    A blank, where Python's Unicode does not know them: they part words, whatever a newer Unicode makes of them.
    Refused, where this server's does not know them, which shows in decomposition and order; and what they are
    composed from.
    """
    known = [p for p in range(0x80, sys.maxunicode + 1) if unicodedata.category(chr(p)) not in ("Cn", "Cs", "Co")]
    treated = connection.execute(_TREATED, {"points": known, "acute": _ACUTE, "below": _BELOW})
    pairs: dict[int, str | None] = {
        p: " " for p in range(0x80, sys.maxunicode + 1) if unicodedata.category(chr(p)) == "Cn"
    }
    for point, apart, after_letter, before_mark in treated:
        character = chr(point)
        here = [unicodedata.normalize("NFKD", character)]
        here += [unicodedata.normalize("NFC", text) for text in (f"a{character}{_ACUTE}", character + _BELOW)]
        if here != [apart, after_letter, before_mark]:
            pairs[point] = None
            composed_from = unicodedata.decomposition(character)
            if composed_from and not composed_from.startswith("<"):
                pairs[int(composed_from.split()[0], 16)] = None
    return tuple(joined(iter(sorted(pairs.items()))))


def _put_characters(driver: DriverConnection[Any], number: int, stage: int, ranges: Sequence[Range]) -> None:
    fields = [
        copying.integer(number),
        copying.smallint(stage),
        copying.integer(np.array([first for first, _, _ in ranges], np.int64)),
        copying.integer(np.array([last for _, last, _ in ranges], np.int64)),
        copying.texts([becomes for _, _, becomes in ranges]),
    ]
    columns = ["fast", "stage", "first", "last", "becomes"]
    copying.copy(driver, "fast_character", columns, copying.in_batches(fields, len(ranges)))
