"""What stands on the right of a distance, beyond texts and vectors: other columns, and what a lambda binds later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, lambda_stmt, select
from sqlalchemy.orm import Session, aliased, sessionmaker

from embeddb import install, nearest
from embeddb.errors import QueryError
from tests.orm.models import HASHING, Article, Base

TITLES = ["flying boats", "boats that fly", "stone bridges", "bridges of stone"]


@pytest.fixture
def session(engine18: Engine) -> Iterator[Session]:
    Base.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    with factory() as session:
        session.add_all([Article(id=number, title=title) for number, title in enumerate(TITLES)])
        session.commit()
        yield session


def test_attributes_of_other_rows(session: Session) -> None:
    other = aliased(Article)
    partner = (
        select(other.id)
        .where(other.id != Article.id)
        .order_by(other.embedding.cosine_distance(Article.embedding))
        .limit(1)
        .scalar_subquery()
    )
    assert session.execute(select(Article.id, partner).order_by(Article.id)).all() == [(0, 1), (1, 0), (2, 3), (3, 2)]


def test_a_column_of_text_is_no_query() -> None:
    with pytest.raises(QueryError, match=r"articles\.title is text in the database"):
        nearest(Article.embedding, Article.title)


def test_lambda_statements_bind_each_query_anew(session: Session) -> None:
    def by_builder(query: object, count: int) -> list[int]:
        return [a.id for a in session.scalars(lambda_stmt(lambda: nearest(Article.embedding, query).limit(count)))]

    def by_hand(query: object, count: int) -> list[int]:
        ordered = lambda_stmt(lambda: select(Article.id).order_by(Article.embedding.cosine_distance(query)))
        ordered += lambda statement: statement.limit(count)
        return list(session.scalars(ordered))

    for search in (by_builder, by_hand):
        for number, title in enumerate(TITLES):
            assert search(title, 1) == [number]
            assert search(HASHING.encode_queries([title])[0], 2)[0] == number
