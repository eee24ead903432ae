"""``rerank``: candidates in the order of a cross-encoder, a tiny one that is made here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from embeddb import nearest, rerank, rerank_async
from embeddb.errors import EncoderNotFound, QueryError
from tests.query.items import VECTORS, Item

CANDIDATES = nearest(Item.embedding, VECTORS[7], exact=True).limit(25)


class Numbers:
    """Prefers the rows with the largest last digit; tells where it ran."""

    def __init__(self, width: int | None = None) -> None:
        self.width = width
        self.pairs: list[tuple[str, str]] = []
        self.thread = 0
        self.batch_size = 0

    def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 0) -> Any:
        self.pairs, self.batch_size, self.thread = list(pairs), batch_size, threading.get_ident()
        scores = np.array([int(text[-1]) for _, text in pairs], dtype=np.float32)
        return scores if self.width is None else np.tile(scores[:, None], self.width)


def expected(session: Session, top: int) -> list[int]:
    ids = [row.id for row in session.scalars(CANDIDATES)]
    return sorted(ids, key=lambda n: -(n % 10))[:top]  # sorted is stable, as rerank is


@pytest.mark.parametrize(
    "text", [Item.title, [Item.title], lambda item: item.title], ids=["column", "list", "function"]
)
def test_order_scores_and_batches(session: Session, text: Any) -> None:
    model = Numbers()
    found = rerank(session, CANDIDATES, "a query", model, text=text, top=6, batch_size=5)
    assert [row.id for row, _ in found] == expected(session, 6)
    assert [score for _, score in found] == [row.id % 10 for row, _ in found]
    assert {query for query, _ in model.pairs} == {"a query"}
    assert (len(model.pairs), model.batch_size) == (25, 5)


def test_several_columns_and_rows_without_text(session: Session) -> None:
    session.get_one(Item, 7).title = " "
    session.get_one(Item, 7).embedding = 2 * VECTORS[7]
    session.flush()
    model = Numbers()
    found = rerank(session, CANDIDATES, "a query", model, text=Item.title, top=25)
    assert len(found) == 24
    rerank(session, CANDIDATES, "a query", model, text=[Item.title, Item.cat])
    assert "7" in [text for _, text in model.pairs]  # of the row without a title
    assert any("\n" in text for _, text in model.pairs)
    assert rerank(session, CANDIDATES.where(Item.cat < 0), "a query", model, text=Item.title) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": Item.title, "top": 0}, "at least 1, not 0"),
        ({"text": "title"}, "a column, a list"),
        ({"text": []}, "a column, a list"),
        ({"text": Item.title, "cross_encoder": Numbers(width=3)}, "one number a pair"),
        ({"text": Item.title, "cross_encoder": 5}, "or has predict"),
        ({"text": Item.title, "query": None}, "the query is a text, not None"),
        ({"text": Item.title, "batch_size": 0}, "read at once, a whole number of at least 1, not 0"),
        ({"text": Item.title, "session": AsyncSession()}, "await rerank_async"),
        ({"text": Item.title, "statement": "x"}, "are a Select"),
    ],
)
def test_what_is_refused(session: Session, options: Any, words: str) -> None:
    given = {"session": session, "statement": CANDIDATES, "query": "a query", "cross_encoder": Numbers(), **options}
    with pytest.raises(QueryError, match=words):
        rerank(**given)


def test_a_model_that_is_nowhere(session: Session, folder: Path) -> None:
    with pytest.raises(EncoderNotFound, match="no cross-encoder '.*nowhere'"):
        rerank(session, CANDIDATES, "a query", str(folder / "nowhere"), text=Item.title)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one narrow layer that gives one number for a pair, with chance weights."""
    pytest.importorskip("sentence_transformers", reason="cross-encoders are sentence-transformers'")
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross_encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "row", *"0123456789", *(f"##{n}" for n in range(10))]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=1, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    return folder


def test_a_model_of_sentence_transformers(session: Session, folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    found = rerank(session, CANDIDATES, "row 9", str(folder), text=Item.title, top=25, batch_size=4)
    model = CrossEncoder(str(folder))
    alone = {row.id: float(model.predict([("row 9", row.title)])[0]) for row in session.scalars(CANDIDATES)}
    assert len(set(alone.values())) > 5
    assert {row.id: score for row, score in found} == pytest.approx(alone, abs=1e-5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


async def test_async_leaves_the_event_loop_free(items_engine: Engine) -> None:
    engine = create_async_engine(items_engine.url.set(drivername="postgresql+asyncpg"))
    turned = threading.Event()

    class Waits(Numbers):
        def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 0) -> Any:
            assert turned.wait(timeout=10), "the event loop stood still"
            return super().predict(pairs, batch_size)

    async def turn() -> None:
        await asyncio.sleep(0.05)
        turned.set()

    model = Waits()
    async with async_sessionmaker(engine)() as session:
        task = asyncio.create_task(turn())
        found = await rerank_async(session, CANDIDATES, "a query", model, text=Item.title, top=4)
        await task
    assert model.thread != threading.get_ident()
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert len(found) == 4
    with Session(items_engine) as other, pytest.raises(QueryError, match="takes an AsyncSession"):
        await rerank_async(other, CANDIDATES, "a query", model, text=Item.title)  # type: ignore[arg-type]  # as it says
    await engine.dispose()
