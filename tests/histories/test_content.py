"""Histories of items that another encoder embeds: a user is what they read, and new items are recommended at once."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import Engine, Float, ForeignKey, Integer, Text, select
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship, sessionmaker

from embeddb import (
    HNSW,
    embedding_column,
    history_column,
    install,
    recommend,
    register,
    register_histories,
    vector_column,
)
from embeddb.encoders import Hashing
from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName, Storage
from embeddb.spec import VectorIndex

TITLES = {
    1: "flying boats of the sea",
    2: "boats that fly over the sea",
    3: "bread and yeast and flour",
    4: "flour for bread by yeast",
    5: "sailing boats at sea",
    6: None,
}


@pytest.mark.parametrize(
    ("metric", "storage", "index"),
    [("cosine", "vector", HNSW(cast="halfvec")), ("l2", "halfvec", HNSW()), ("inner_product", "vector", None)],
)
def test_what_is_like_that_which_was_read(
    engine18: Engine, metric: MetricName, storage: Storage, index: VectorIndex | None
) -> None:
    class Base(DeclarativeBase):
        pass

    class Reader(Base):
        __tablename__ = "readers"
        id = mapped_column(Integer, primary_key=True)
        taste = history_column("loans", item="book", vector="embedding", at="at", half_life=3, dim=64)

    class Book(Base):
        __tablename__ = "books"
        id = mapped_column(Integer, primary_key=True)
        title = mapped_column(Text)
        embedding = embedding_column(
            "title",
            encoder=Hashing(dim=64),
            metric=metric,
            storage=storage,
            index=index,
        )

    class Loan(Base):
        __tablename__ = "loans"
        id = mapped_column(Integer, primary_key=True)
        reader_id = mapped_column(ForeignKey(Reader.id))
        book_id = mapped_column(ForeignKey(Book.id))
        at = mapped_column(Float)
        book = relationship(Book)

    Reader.loans = relationship(Loan, viewonly=True)
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    register_histories(engine18, Base)
    factory = sessionmaker(engine18)
    install(factory)
    with factory() as session:
        session.add_all([Book(id=number, title=title) for number, title in TITLES.items()])
        session.add_all([Reader(id=1), Reader(id=2)])
        session.flush()
        session.add_all([Loan(reader_id=1, book_id=book, at=float(book)) for book in (1, 5)])
        session.commit()
        found = session.scalars(recommend(Reader.taste, 1, items=Book.embedding).limit(3)).all()
        assert found[0].id == 2
        assert {book.id for book in found} == {2, 3, 4}
        cold = session.scalars(recommend(Reader.taste, 2, items=Book.embedding).limit(3)).all()
        assert [book.id for book in cold] == [1, 5, 2]
        # Another title is another vector, and another taste.
        before = session.scalars(select(Reader.taste).where(Reader.id == 1)).one()
        session.get_one(Book, 5).title = "bread of the sea"
        session.commit()
        assert not np.allclose(before, session.scalars(select(Reader.taste).where(Reader.id == 1)).one(), atol=1e-3)


def test_columns_of_vectors_refuse_what_cannot_be_indexed() -> None:
    with pytest.raises(DeclarationError, match="positive number of dimensions"):
        vector_column(0)
    with pytest.raises(DeclarationError, match="2000|2,000"):
        vector_column(3000)
    assert vector_column(3000, index=None).column.info
