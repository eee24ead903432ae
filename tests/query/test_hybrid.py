"""``hybrid``: fused ranks against NumPy, filters inside the legs, and what a real collection gains."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Computed, Engine, ForeignKey, Index, bindparam, exists, func, insert, select, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from embeddb import Vector, embedding_column, fulltext, hybrid, rank_leg, text_leg, vector_leg
from embeddb.encoders import Hashing
from embeddb.errors import QueryError
from tests.query.items import plan

DIM = 16
ROWS = 600
UNKNOWN: Any = "all"
WORDS = ["wing", "flow", "jet", "heat", "shock", "layer", "plate", "cone", "drag", "lift"]


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Paper(Base):
    __tablename__ = "paper"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str | None]
    year: Mapped[int]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    words: Mapped[Any] = mapped_column(
        TSVECTOR, Computed("to_tsvector('english', title || ' ' || coalesce(body, ''))", persisted=True), deferred=True
    )
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=Hashing(dim=DIM))


Index("ix_paper_words", Paper.words, postgresql_using="gin")
Index("ix_paper_fulltext", fulltext(Paper.title, Paper.body).vector, postgresql_using="gin")

RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(ROWS, DIM)).astype(np.float32)
TITLES = [" ".join(RNG.choice(WORDS, size=3)) for _ in range(ROWS)]
BODIES = [" ".join(RNG.choice(WORDS, size=RNG.integers(1, 9))) if n % 5 else None for n in range(ROWS)]


@pytest.fixture(scope="module")
def engine(module_engine: Engine) -> Engine:
    Base.metadata.create_all(module_engine)
    with Session(module_engine) as session:
        session.add_all(Author(id=n, name=f"author {n}") for n in range(4))
        session.flush()
        session.add_all(
            Paper(id=n, title=TITLES[n], body=BODIES[n], year=n, author_id=n % 4, embedding=VECTORS[n])
            for n in range(ROWS)
        )
        session.commit()
        session.execute(text("ANALYZE"))
        session.commit()
    return module_engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def by_vector(query: Any, among: Any) -> list[int]:
    similar = VECTORS @ query / np.linalg.norm(VECTORS, axis=1)
    return [int(n) for n in np.argsort(-similar, kind="stable") if among[n]]


def by_words(query: str, among: Any) -> list[int]:
    """As BM25 with ts_rank's measure of how often: weight .1, the sum of 1/j² over occurrences, by its limit."""
    documents = [f"{title} {body or ''}".split() for title, body in zip(TITLES, BODIES, strict=True)]
    hits: dict[int, list[tuple[float, float]]] = defaultdict(list)
    lengths = []
    for word in set(query.split()):
        rows = [n for n in range(ROWS) if among[n] and word in documents[n]]
        rarity = np.log(1 + (max(ROWS - len(rows), 0) + 0.5) / (len(rows) + 0.5))
        for n in rows:
            often = documents[n].count(word)
            # calc_rank_or of src/backend/utils/adt/tsrank.c: of equal weights the first is taken for the largest.
            measure = 0.1 * sum(1 / j**2 for j in range(1, often + 1)) / 1.64493406685
            hits[n].append((rarity * measure, len(set(documents[n]))))
            lengths.append(len(set(documents[n])))
    mean = float(np.mean(lengths))
    scores: dict[int, float] = {
        n: sum(value / (0.7 + 0.3 * length / mean) for value, length in found) for n, found in hits.items()
    }
    return sorted(scores, key=lambda n: (-round(scores[n], 9), n))


def fused(*legs: list[int], weights: tuple[float, ...] = (1, 1), k: float = 60, candidates: int = 100) -> list[Any]:
    scores: dict[int, float] = defaultdict(float)
    for leg, weight in zip(legs, weights, strict=True):
        for rank, n in enumerate(leg[:candidates], 1):
            scores[n] += weight / (k + rank)
    return sorted(scores.items(), key=lambda item: (-round(item[1], 12), item[0]))


EVERY = np.ones(ROWS, bool)


@pytest.mark.parametrize("source", [Paper.words, fulltext(Paper.title, Paper.body)], ids=["tsvector", "columns"])
def test_the_text_leg(session: Session, source: Any) -> None:
    query = "shock wing wing lift"
    found = session.execute(hybrid(text_leg(source, query), score=True, candidates=50)).all()
    expected = by_words(query, EVERY)[:50]
    # ts_rank is in single precision: those with almost equal scores may change places.
    assert len(set(expected) & {row[0].id for row in found}) >= 48
    assert [row.score for row in found] == pytest.approx([1 / (60 + rank) for rank in range(1, 51)])
    top = [row[0].id for row in found[:5]]
    assert len(set(top) & set(expected[:8])) >= 4


def test_fused_ranks_weights_and_k(session: Session) -> None:
    query = VECTORS[17] + 0.1
    words = by_words_in_sql(session, "jet heat")
    legs = (vector_leg(Paper.embedding, query, exact=True), text_leg(Paper.words, "jet heat", 0.3))
    found = session.execute(hybrid(*legs, score=True, candidates=40).limit(20)).all()
    expected = fused(by_vector(query, EVERY), words, weights=(1, 0.3), candidates=40)[:20]
    assert [row[0].id for row in found] == [n for n, _ in expected]
    assert [row.score for row in found] == pytest.approx([score for _, score in expected])
    found = session.execute(hybrid(*legs, weights=(2, 5), k=1, score=True, candidates=40).limit(20)).all()
    expected = fused(by_vector(query, EVERY), words, weights=(2, 5), k=1, candidates=40)[:20]
    assert [row[0].id for row in found] == [n for n, _ in expected]


def by_words_in_sql(session: Session, query: str, *criteria: Any) -> list[int]:
    statement = hybrid(text_leg(Paper.words, query), candidates=ROWS).where(*criteria)
    return [row.id for row in session.scalars(statement)]


def test_filters_and_joins_count_inside_the_legs(session: Session) -> None:
    query = "jet heat"
    vector = VECTORS[3]
    legs = (vector_leg(Paper.embedding, vector, exact=True), text_leg(Paper.words, query))
    number = np.arange(ROWS)
    few = (number >= 500) & (number % 4 == 1)
    expected = [n for n, _ in fused(by_vector(vector, few), by_words_in_sql(session, query, few_rows()), candidates=10)]
    by_join = hybrid(*legs, candidates=10).join(Author).where(Author.name == "author 1", Paper.year >= 500)
    by_exists = hybrid(*legs, candidates=10).where(
        Paper.year >= 500, exists().where(Author.id == Paper.author_id, Author.name == "author 1")
    )
    by_product = hybrid(*legs, candidates=10).where(
        Paper.year >= 500, Author.id == Paper.author_id, Author.name == "author 1"
    )
    for statement in (by_join, by_exists, by_product, hybrid(*legs, candidates=10).where(few_rows())):
        assert [row.id for row in session.scalars(statement)] == expected
    assert session.scalar(select(func.count()).select_from(by_join.subquery())) == len(expected)
    assert len(expected) >= 10


def few_rows() -> Any:
    return (Paper.year >= 500) & (Paper.author_id == 1)


def test_its_own_score_thins_out_what_was_found(session: Session) -> None:
    statement = hybrid(Paper.embedding, "jet heat", text=Paper.words, score=True).where(Paper.year > 0)
    rows = session.execute(statement).all()
    above = session.execute(statement.where(statement.selected_columns.score > rows[5].score)).all()
    assert above == [row for row in rows if row.score > rows[5].score]


def test_columns_that_are_no_tsvectors(session: Session) -> None:
    by_title = hybrid(text_leg(Paper.title, "heat"))
    assert session.scalars(by_title).all() == session.scalars(hybrid(text_leg(fulltext(Paper.title), "heat"))).all()
    assert session.scalars(hybrid(text_leg(fulltext(Paper.id), "7"))).one().id == 7


def test_a_search_within_a_search(session: Session) -> None:
    inner = hybrid(text_leg(Paper.words, "cone")).where(Paper.year < 300).limit(20).subquery()
    outer = hybrid(vector_leg(Paper.embedding, VECTORS[5], exact=True), candidates=5)
    found = session.scalars(outer.where(Paper.id.in_(select(inner.c.id)), Paper.year > 20)).all()
    assert len(found) == 5
    assert all(20 < row.year < 300 and "cone" in f"{row.title} {row.body}" for row in found)


def test_an_alias_and_three_legs(session: Session) -> None:
    other = aliased(Paper)
    newest = rank_leg(other, -other.year, other.year < 400, weight=0.5)
    statement = hybrid(vector_leg(other.embedding, VECTORS[9]), text_leg(other.words, "drag"), newest, score=True)
    found = session.execute(statement.where(other.year < 450).limit(5)).all()
    assert all(row[0].year < 450 for row in found)
    table = Paper.__table__
    core = hybrid(text_leg(table.c.words, "drag"), vector_leg(table.c.embedding, VECTORS[9])).where(table.c.year < 9)
    assert {row.id for row in session.connection().execute(core)} == set(range(9))


def test_indexes_serve_and_one_statement_serves_all_texts(session: Session, engine: Engine) -> None:
    for setting in ("enable_seqscan", "enable_sort"):
        session.execute(text(f"SET LOCAL {setting} = off"))
    statement = hybrid(Paper.embedding, "jet heat", text=Paper.words, candidates=5).limit(5)
    shown = plan(session, statement)
    assert "Index Scan using ix_paper_embedding_hnsw" in shown
    assert "Bitmap Index Scan on ix_paper_words" in shown
    assert "hnsw.ef_search" in shown
    by_columns = hybrid(Paper.embedding, "jet heat", text=fulltext(Paper.title, Paper.body), candidates=5).limit(5)
    assert "Bitmap Index Scan on ix_paper_fulltext" in plan(session, by_columns)
    cached = []
    for n, query in enumerate(("lift", "a wing's \\ flow", "of the", "x")):
        asked = hybrid(Paper.embedding, query, text=Paper.words, candidates=n + 3, k=n, weights=(n, 1))
        session.scalars(asked.where(Paper.year > n).limit(n + 1)).all()
        cached.append(len(engine._compiled_cache or ()))
    assert cached == cached[:1] * 4
    later = hybrid(vector_leg(Paper.embedding, bindparam("q")), text_leg(Paper.words, bindparam("w"))).limit(3)
    found = session.scalars(later, {"q": "jet heat", "w": "jet heat"}).all()
    assert [row.id for row in found] == [
        row.id for row in session.scalars(hybrid(Paper.embedding, "jet heat", text=Paper.words).limit(3))
    ]


def test_websearch_syntax(session: Session) -> None:
    statement = hybrid(text_leg(Paper.words, '"jet heat" -wing', match="websearch"), candidates=ROWS)
    found = session.scalars(statement).all()
    both = [f"{title} {body or ''}" for title, body in zip(TITLES, BODIES, strict=True)]
    assert {row.id for row in found} == {
        n for n, words in enumerate(both) if "jet heat" in words and "wing" not in words
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hybrid(Paper.embedding, "x"), "text="),
        (lambda: hybrid(Paper.embedding, bindparam("q"), text=Paper.words), "cannot be a text and a vector"),
        (lambda: hybrid(Paper.embedding, [1.0], text=Paper.words), "for others give legs"),
        (lambda: hybrid(text_leg(Paper.words, "x"), weights=(1, 2)), "1 legs and 2 weights"),
        (lambda: hybrid(text_leg(Paper.words, "x"), weights=(-1,)), "0 or more"),
        (lambda: hybrid(text_leg(Paper.words, "x"), candidates=0), "at least 1"),
        (lambda: hybrid(text_leg(Paper.words, "x"), text=Paper.words), "legs alone"),
        (lambda: hybrid(text_leg(Paper.words, "x"), vector_leg(aliased(Paper).embedding, "x")), "one entity"),
        (lambda: hybrid(text_leg(Paper.words, "x", match=UNKNOWN)), "'any' or 'websearch'"),
        (lambda: hybrid(text_leg(Paper.words, 3)), "a string, not 3"),
        (lambda: text_leg(Paper.id, "x"), "a tsvector column or fulltext"),
        (lambda: hybrid(text_leg(Paper.words, "x"), weights=["x"]), "a weight is a number, not 'x'"),  # type: ignore[list-item]
        (lambda: fulltext(), "takes the columns"),
        (lambda: vector_leg(Paper.title, "x"), "embedding_column"),
    ],
)
def test_what_is_refused(make: Any, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        make()


def test_questions_in_whole_sentences(engine18: Engine, shared_data: Path) -> None:
    """Cranfield by words alone: nDCG@10, with gains 5 - grade, is beyond what ts_rank_cd gets of any word (.37)."""
    relevant: dict[int, dict[int, int]] = defaultdict(dict)
    for line in (shared_data / "cranfield" / "cranqrel").read_text().splitlines():
        question, document, grade = (int(part) for part in line.split()[:3])
        relevant[question][document] = 5 - grade if grade > 0 else 0
    texts = re.findall(r"^\.W\n(.*?)(?=^\.I |\Z)", (shared_data / "cranfield" / "cran.all.1400").read_text(), FLAGS)
    questions = re.findall(r"^\.W\n(.*?)(?=^\.I |\Z)", (shared_data / "cranfield" / "cran.qry").read_text(), FLAGS)
    Base.metadata.create_all(engine18)
    papers = [
        {"id": n, "title": " ".join(words.split()), "year": 0, "author_id": 1} for n, words in enumerate(texts, 1)
    ]
    with Session(engine18) as session:
        session.add(Author(id=1, name="all"))
        session.flush()
        session.connection().execute(insert(Paper.__table__), papers)  # type: ignore[arg-type]  # a Table
        session.execute(text("ANALYZE"))
        found = []
        for number, question in enumerate(questions, 1):
            rows = session.scalars(hybrid(text_leg(Paper.words, question)).limit(10))
            gains = [relevant[number].get(row.id, 0) for row in rows]
            ideal = sorted(relevant[number].values(), reverse=True)[:10]
            found.append(discounted(gains) / discounted(ideal))
    assert len(found) == 225
    assert np.mean(found) > 0.48


FLAGS = re.DOTALL | re.MULTILINE


def discounted(gains: list[int]) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))


async def test_async(engine: Engine) -> None:
    other = create_async_engine(engine.url.set(drivername="postgresql+asyncpg"))
    async with async_sessionmaker(other)() as session:
        rows = await session.scalars(hybrid(Paper.embedding, "jet", text=Paper.words).where(Paper.year < 50).limit(4))
        assert len(rows.all()) == 4
    await other.dispose()
