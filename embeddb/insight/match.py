"""Why a text matches a query: what each of its words adds, by leaving it out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from sqlalchemy import Connection, Text, cast, literal, select
from sqlalchemy.exc import DataError

from embeddb.encoders import Encoder, embed_documents, embed_query, from_config
from embeddb.errors import NoEmbedding, QueryError
from embeddb.insight.sample import Subject, subject_of
from embeddb.insight.statistics import distances
from embeddb.metrics import METRICS, MetricName
from embeddb.query.bind import Bind, connected
from embeddb.query.embedding import AnyEmbedding
from embeddb.sources import compose

#: A run of letters and digits, with apostrophes and hyphens within; of scripts that know no spaces, each character.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’-](?:(?![{_UNSPACED}])\w)+)*")


class Weight(NamedTuple):
    """A word, and how much of the score goes with it: negative where the text matches better without it."""

    word: str
    weight: float


@dataclass(frozen=True, slots=True)
class Match:
    """A row's text, its score against a query, and its words, the most telling first."""

    text: str
    score: float
    words: tuple[Weight, ...]


def explain_match(encoder: Encoder, query: str, text: str, *, metric: MetricName = "cosine") -> list[Weight]:
    """Which words of ``text`` made it match ``query``, the most telling first.

    Leave-one-out (Li, Monroe, Jurafsky 2016, "Understanding Neural Networks through Representation Erasure"): the
    text's score less its score without the word, wherever it stands. Words are told apart without their case. The text
    is encoded once for each of its words, in batches; a text that is nothing without a word owes it its whole score.
    Raises QueryError for an encoder that takes no text, and NoEmbedding where one of the two has none.
    """
    return list(_match(encoder, query, text, metric).words)


def explain_row(
    bind: Bind,
    embedding: str | AnyEmbedding,
    query: str,
    key: Any,
    *,
    encoder: Encoder | None = None,
) -> Match:
    """The same for a row's text as it is embedded: its sources, joined or in their template.

    ``key``: the row's primary key, a tuple where that is several columns. ``encoder``: by default the registered one.
    Raises QueryError where the embedding is unknown, there is no such row, or it has no text.
    """
    with connected(bind, "explain_row") as connection:
        subject = subject_of(connection, embedding)
        if subject.spec is None:
            raise QueryError(f"{subject.name} is not registered, so its sources are not known: embeddb.register(…)")
        text = _text_of(connection, subject, key if isinstance(key, tuple) else (key,))
    return _match(encoder or from_config(subject.spec.encoder), query, text, subject.metric)


def words_of(text: str) -> dict[str, list[tuple[int, int]]]:
    """The words of a text, case folded, in their order, and where each of them stands: (start, end)."""
    places: dict[str, list[tuple[int, int]]] = {}
    for found in _WORD.finditer(text):
        places.setdefault(found[0].casefold(), []).append(found.span())
    return places


def _match(encoder: Encoder, query: str, text: str, metric: MetricName) -> Match:
    if encoder.modality != "text":
        raise QueryError(f"{encoder!r} takes {encoder.modality}, and only a text has words")
    places = words_of(text)
    made = embed_documents(encoder, [text, *(_without(text, spans) for spans in places.values())])
    if np.isnan(made[0]).any():
        raise NoEmbedding(f"{encoder!r} has no embedding of the text: it knows nothing in it")
    away = distances(embed_query(encoder, query)[None], made, metric)[0].astype(float)
    if metric == "l2":
        away = np.sqrt(away)
    scores = METRICS[metric].score(away)
    lost = scores[0] - np.where(np.isnan(scores[1:]), 0, scores[1:])
    words = [Weight(text[slice(*spans[0])], float(weight)) for spans, weight in zip(places.values(), lost, strict=True)]
    return Match(text, float(scores[0]), tuple(sorted(words, key=lambda word: -word.weight)))


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, start = [], 0
    for begin, end in spans:
        parts.append(text[start:begin])
        start = end
    return " ".join("".join([*parts, text[start:]]).split())


def _text_of(connection: Connection, subject: Subject, key: tuple[Any, ...]) -> str:
    assert subject.spec is not None
    identity = tuple(subject.table.primary_key)
    if len(key) != len(identity):
        names = ", ".join(column.name for column in identity)
        raise QueryError(f"a row of {subject.table.name} has the key ({names}), and {len(key)} values were given")
    named = {column.name: column for column in subject.table.columns}
    sources = subject.spec.sources
    statement = select(*(named[name] for name in sources))
    for column, value in zip(identity, key, strict=True):
        # As text that Postgres reads: a command line knows no types.
        statement = statement.where(column == cast(literal(str(value), Text), column.type))
    shown = ", ".join(map(str, key))
    try:
        row = connection.execute(statement).one_or_none()
    except DataError as error:
        kinds = ", ".join(f"{column.name} {column.type}" for column in identity)
        raise QueryError(f"{shown} is no key of {subject.table.name}, which has ({kinds})") from error
    if row is None:
        raise QueryError(f"{subject.table.name} has no row {shown}")
    text = compose(tuple(row), sources, subject.spec.template)
    if text is None:
        raise QueryError(f"row {shown} of {subject.table.name} has no text: its sources are NULL or blank")
    return text
