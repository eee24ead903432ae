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
from sqlalchemy import ColumnElement, Connection, Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import QueryableAttribute, Session, scoped_session

from embeddb.errors import EncoderNotFound, MissingExtra, QueryError
from embeddb.query.given import whole


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
    if isinstance(session, AsyncSession | AsyncConnection | async_scoped_session):
        raise QueryError("rerank takes a Session: in an async one await rerank_async(…)")
    statement, composed = _prepared(statement, query, cross_encoder, text, top, batch_size)
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
    if isinstance(session, Session | Connection | scoped_session):
        raise QueryError("rerank_async takes an AsyncSession: in another call rerank(…)")
    statement, composed = _prepared(statement, query, cross_encoder, text, top, batch_size)
    rows = (await session.execute(statement)).all()
    pairs = [(row[0], composed(row)) for row in rows]
    return await asyncio.to_thread(_order, pairs, query, cross_encoder, top, batch_size)


def _prepared(
    statement: Any, query: Any, cross_encoder: Any, text: Any, top: Any, batch_size: Any
) -> tuple[Select[Any], Callable[[Any], str | None]]:
    """The statement with the text's columns at its end, and what reads the text of one of its rows."""
    whole(top, "rerank: top is the number of results")
    whole(batch_size, "rerank: batch_size is the number of pairs read at once")
    if not isinstance(query, str) or not query.strip():
        raise QueryError(f"rerank: the query is a text, not {query!r}")
    if not isinstance(statement, Select):
        raise QueryError(f"rerank: the candidates are a Select, as nearest(…).limit(50) is, not {statement!r}")
    if not isinstance(cross_encoder, str) and not hasattr(cross_encoder, "predict"):
        raise QueryError(f"rerank: a cross-encoder is a model's name, or has predict(pairs); not {cross_encoder!r}")
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
    try:
        model: CrossEncoder = Model(name)
    except (OSError, ValueError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise EncoderNotFound(
            f"no cross-encoder {name!r}, as a folder or by that name at Hugging Face: {said}"
        ) from error
    return model
