"""``rerank``: candidates put in order by a cross-encoder, which reads query and text together.

It is better than two vectors, and too slow for more than some dozens of texts (Nogueira and Cho 2019, "Passage
Re-ranking with BERT"). So a search proposes, and this orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from sqlalchemy import ColumnElement, Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import QueryableAttribute, Session

from embeddb.errors import MissingExtra, QueryError


class CrossEncoder(Protocol):
    """What scores pairs of a query and a text: sentence-transformers' CrossEncoder, or anything like it."""

    def predict(self, sentences: Any, /, *, batch_size: int = ...) -> Any:
        """One number a pair, larger is better: shape (pairs,)."""


Text = QueryableAttribute[Any] | ColumnElement[Any] | Callable[[Any], str | None]


def rerank(
    session: Session,
    statement: Select[Any],
    query: str,
    cross_encoder: str | CrossEncoder,
    *,
    text: Text | Sequence[QueryableAttribute[Any] | ColumnElement[Any]],
    top: int = 10,
    batch_size: int = 32,
) -> list[tuple[Any, float]]:
    """Run ``statement`` and give its ``top`` entities with their scores by the cross-encoder, the best first.

    ``statement``: the candidates, ``nearest(Article.embedding, query).limit(50)``; all its rows are scored.
    ``cross_encoder``: a model's name or folder, loaded once a process, or an object with ``predict(pairs)``.
    ``text``: the column that is read, several of them, or a function of the entity. Rows without text are left out.
    """
    statement, composed = _with_texts(statement, text, top)
    rows = session.execute(statement).all()
    return _order([(row[0], composed(row)) for row in rows], query, cross_encoder, top, batch_size)


async def rerank_async(
    session: AsyncSession,
    statement: Select[Any],
    query: str,
    cross_encoder: str | CrossEncoder,
    *,
    text: Text | Sequence[QueryableAttribute[Any] | ColumnElement[Any]],
    top: int = 10,
    batch_size: int = 32,
) -> list[tuple[Any, float]]:
    """``rerank`` for an async session: the model runs in a thread, so that the event loop goes on."""
    statement, composed = _with_texts(statement, text, top)
    rows = (await session.execute(statement)).all()
    pairs = [(row[0], composed(row)) for row in rows]
    return await asyncio.to_thread(_order, pairs, query, cross_encoder, top, batch_size)


def _with_texts(statement: Select[Any], text: Any, top: int) -> tuple[Select[Any], Callable[[Any], str | None]]:
    """The statement with the text's columns at its end, and what reads the text of one of its rows."""
    if top < 1:
        raise QueryError(f"rerank: top is the number of results, at least 1, not {top}")
    if not isinstance(text, QueryableAttribute | ColumnElement | Sequence) and callable(text):
        return statement, lambda row: text(row[0])
    columns = list(text) if isinstance(text, Sequence) else [text]
    if not columns or not all(isinstance(column, QueryableAttribute | ColumnElement) for column in columns):
        raise QueryError(f"rerank: text is a column, a list of columns or a function of the entity, not {text!r}")

    def composed(row: Any) -> str | None:
        parts = [str(part) for part in row[-len(columns) :] if part is not None and str(part).strip()]
        return "\n".join(parts) or None

    return statement.add_columns(*columns), composed


def _order(
    rows: list[tuple[Any, str | None]], query: str, cross_encoder: str | CrossEncoder, top: int, batch_size: int
) -> list[tuple[Any, float]]:
    """The rows that have a text, by their score; equal ones keep their order."""
    given = [(entity, text) for entity, text in rows if text]
    if not given:
        return []
    model = _load(cross_encoder) if isinstance(cross_encoder, str) else cross_encoder
    scores = np.asarray(model.predict([(query, text) for _, text in given], batch_size=batch_size), dtype=np.float64)
    if scores.shape != (len(given),) or not np.isfinite(scores).all():
        raise QueryError(
            f"rerank: {model!r} gave scores of shape {scores.shape} for {len(given)} pairs, or some that are no "
            "numbers: it must give one number a pair, as a model with one label does"
        )
    order = np.argsort(-scores, kind="stable")[:top]
    return [(given[number][0], float(scores[number])) for number in order]


@lru_cache(maxsize=4)
def _load(name: str) -> CrossEncoder:
    try:
        from sentence_transformers import CrossEncoder as Model
    except ModuleNotFoundError as error:
        raise MissingExtra("a cross-encoder needs sentence-transformers: pip install 'embeddb[text]'") from error
    model: CrossEncoder = Model(name)
    return model
