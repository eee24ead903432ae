"""Sessions that were started under one encoder go on under the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import embeddb
from embeddb import HNSW, Vector, declared, embedding_column, install, nearest, register
from embeddb.catalog.register import register_spec
from embeddb.encoders import Encoder, Hashing, OpenAI, Vectors, WordVectors
from embeddb.errors import EncoderError
from embeddb.orm import following
from embeddb.spec import EmbeddingSpec

OLD, NEW = Hashing(dim=32), Hashing(dim=48)


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", encoder=OLD, index=HNSW())


class Remote(DeclarativeBase):
    pass


class Item(Remote):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("name", encoder=OpenAI("m", dim=4, batch_size=3))


def spec(encoder: Encoder) -> EmbeddingSpec:
    [declaration] = declared(Base)
    return replace(declaration.spec, encoder=dict(encoder.config), dim=encoder.dim)


def sql(engine: Engine, statement: str, **parameters: object) -> object:
    with engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.scalar() if result.returns_rows else None


@pytest.fixture
def sessions(engine18: Engine, monkeypatch: pytest.MonkeyPatch) -> sessionmaker[Session]:
    """A running application with a hundred articles, whose sessions look at every transaction."""
    monkeypatch.setattr(following, "INTERVAL", 0.0)
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    factory = sessionmaker(engine18)
    install(factory)
    with factory.begin() as session:
        session.add_all(Article(title=f"title {number}") for number in range(100))
    return factory


@pytest.fixture
def same_dim(tmp_path: Path) -> WordVectors:
    """An encoder whose vectors Postgres would compare with the old one's."""
    file, generator = tmp_path / "words.txt", np.random.default_rng(1)
    words = ["title", "late", "too", "by", "mappings", "objects", "update", *map(str, range(100))]
    lines = [f"{word} {' '.join(map(str, generator.normal(size=32)))}" for word in words]
    file.write_text(f"{len(words)} 32\n" + "\n".join(lines))
    return WordVectors(str(file))


def expand(engine: Engine, encoder: Encoder = NEW) -> None:
    sql(engine, "SELECT embeddb.expand(cast(:spec AS jsonb))", spec=spec(encoder).to_json())
    embeddb.drain(engine)
    sql(
        engine,
        "CREATE INDEX ix_articles_embedding_hnsw__next ON articles USING hnsw (embedding__next vector_cosine_ops)",
    )


def swap(engine: Engine) -> None:
    sql(engine, "SELECT embeddb.swap('articles.embedding')")


def found(session: Session, title: str) -> str:
    article: Article = session.scalars(nearest(Article.embedding, title).limit(1)).one()
    return article.title


def dims(engine: Engine) -> set[tuple[int, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT DISTINCT vector_dims(embedding) FROM articles"))
        return {tuple(row) for row in rows}


def test_searches_follow_a_swap_a_return_and_the_end(engine18: Engine, sessions: sessionmaker[Session]) -> None:
    expand(engine18)
    for step in ("swap", "roll_back", "swap", "contract"):
        with sessions() as session:
            assert found(session, "title 17") == "title 17", step
        sql(engine18, f"SELECT embeddb.{step}('articles.embedding')")
        with sessions() as session:
            assert found(session, "title 42") == "title 42", step
    assert dims(engine18) == {(48,)}


def test_the_same_dimensions_are_told_apart(
    engine18: Engine, sessions: sessionmaker[Session], same_dim: WordVectors
) -> None:
    expand(engine18, same_dim)
    swap(engine18)
    with sessions() as session:
        row = session.execute(nearest(Article.embedding, "title 17", distance=True).limit(1)).one()
        assert row.Article.title == "title 17"
        assert row.distance == pytest.approx(0, abs=1e-5)


def test_what_old_processes_write_is_embedded_by_workers(engine18: Engine, sessions: sessionmaker[Session]) -> None:
    expand(engine18)
    swap(engine18)
    with sessions.begin() as session:
        session.add(Article(title="a new one"))
        session.execute(select(Article)).first()
        changed = session.get_one(Article, 3)
        changed.title = "another title"
    embeddb.drain(engine18)
    assert dims(engine18) == {(48,)}
    with sessions() as session:
        for title in ("a new one", "another title"):
            assert found(session, title) == title
            stored = session.scalars(select(Article.embedding).where(Article.title == title)).one()
            assert stored is not None
            np.testing.assert_allclose(stored, NEW.encode_documents([title])[0], rtol=1e-5)
    assert sql(engine18, "SELECT count(*) FROM articles WHERE embedding__old IS NULL") == 0


def test_a_transaction_that_searches_holds_up_the_swap(engine18: Engine, sessions: sessionmaker[Session]) -> None:
    expand(engine18)
    with sessions() as session:
        assert found(session, "title 1") == "title 1"
        with pytest.raises(OperationalError, match="lock timeout"):
            swap(engine18)
        assert found(session, "title 2") == "title 2"
    swap(engine18)


def test_an_old_snapshot_is_told_to_begin_again(engine18: Engine, sessions: sessionmaker[Session]) -> None:
    expand(engine18)
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.execute(text("SELECT count(*) FROM pg_class"))  # takes the snapshot, holds nothing of ours
        swap(engine18)
        with pytest.raises(OperationalError, match="changed during this transaction"):
            found(session, "title 3")
    with sessions() as session:
        assert found(session, "title 3") == "title 3"


def test_a_role_without_rights_and_a_database_without_catalog_go_on(engine18: Engine) -> None:
    Base.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    with factory.begin() as session:
        session.add(Article(title="alone"))
    with factory() as session:
        assert found(session, "alone") == "alone"
    register(engine18, Base, install=True)
    role = f"poor_{abs(hash(str(engine18.url)))}"
    sql(engine18, f"CREATE ROLE {role} LOGIN")
    sql(engine18, f"GRANT SELECT ON articles TO {role}")
    poor = create_engine(engine18.url.set(username=role))
    with Session(poor) as session:
        assert found(session, "alone") == "alone"
    factory = sessionmaker(poor)
    install(factory)
    with factory() as session:
        assert found(session, "alone") == "alone"
    poor.dispose()
    sql(engine18, f"DROP OWNED BY {role}")
    sql(engine18, f"DROP ROLE {role}")


def test_changes_out_of_order_are_refused(engine18: Engine, sessions: sessionmaker[Session]) -> None:
    def refused(statement: str, message: str) -> None:
        with pytest.raises(Exception, match=message):
            sql(engine18, statement, spec=spec(NEW).to_json())

    refused("SELECT embeddb.swap('articles.embedding')", "is not being changed")
    sql(engine18, "SELECT embeddb.expand(cast(:spec AS jsonb))", spec=spec(NEW).to_json())
    refused("SELECT embeddb.expand(cast(:spec AS jsonb))", "being changed already")
    refused("SELECT embeddb.swap('articles.embedding')", "has no index yet")
    sql(
        engine18,
        "CREATE INDEX ix_articles_embedding_hnsw__next ON articles USING hnsw (embedding__next vector_cosine_ops)",
    )
    refused("SELECT embeddb.swap('articles.embedding')", "100 rows still wait")
    refused("SELECT embeddb.contract('articles.embedding')", "is filling, not swapped")
    sql(engine18, "SELECT embeddb.abandon('articles.embedding')")
    assert sql(engine18, "SELECT count(*) FROM embeddb.embedding") == 1
    with sessions() as session:
        assert found(session, "title 3") == "title 3"


def test_a_change_of_three_seconds_is_noticed(engine18: Engine, same_dim: WordVectors) -> None:
    """Vectors of as many dimensions, which Postgres would compare; nobody is made to look more often than usual."""
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    factory = sessionmaker(engine18)
    install(factory)
    with factory.begin() as session:
        session.add_all(Article(title=f"title {number}") for number in range(20))
    expand(engine18, same_dim)
    swap(engine18)
    with factory() as session:
        best = session.execute(nearest(Article.embedding, "title 7", distance=True).limit(1)).one()
        assert best.distance == pytest.approx(0, abs=1e-6)


def test_bulk_methods_write_no_vectors_of_the_old_encoder(
    sessions: sessionmaker[Session], engine18: Engine, same_dim: WordVectors
) -> None:
    expand(engine18, same_dim)
    swap(engine18)
    with sessions.begin() as session:
        session.bulk_insert_mappings(Article, [{"id": 501, "title": "by mappings"}])
        session.bulk_save_objects([Article(id=502, title="by objects")])
        session.bulk_update_mappings(Article, [{"id": 1, "title": "by update"}])
    waiting = "SELECT count(*) FROM articles WHERE id IN (501, 502) AND embedding IS NULL"
    assert sql(engine18, waiting) == 2
    embeddb.drain(engine18)
    with sessions() as session:
        for title in ("by mappings", "by objects", "by update"):
            assert found(session, title) == title


def test_an_encoder_that_takes_long_writes_nothing_after_the_exchange(
    sessions: sessionmaker[Session], engine18: Engine, same_dim: WordVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    expand(engine18, same_dim)
    monkeypatch.setattr(following, "INTERVAL", 3600)  # the session has just looked
    encode = Hashing.encode_documents

    def exchanged_meanwhile(self: Hashing, inputs: Sequence[str]) -> Vectors:
        monkeypatch.undo()
        swap(engine18)
        return encode(self, inputs)

    monkeypatch.setattr(Hashing, "encode_documents", exchanged_meanwhile)
    with sessions() as session:
        session.add(Article(id=601, title="too late"))
        with pytest.raises(EncoderError, match="exchanged while rows were being embedded.*try the transaction again"):
            session.commit()
        session.rollback()
        session.add(Article(id=601, title="too late"))
        session.commit()
    embeddb.drain(engine18)
    with sessions() as session:
        assert found(session, "too late") == "too late"


def test_an_encoder_that_is_run_otherwise_is_the_same(engine18: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sessions, and by what drains their queue."""
    seen: list[Encoder] = []

    def encode(self: OpenAI, inputs: Sequence[str]) -> Vectors:
        seen.append(self)
        return np.ones((len(inputs), 4), np.float32)

    monkeypatch.setattr(OpenAI, "encode_documents", encode)
    Remote.metadata.create_all(engine18)
    register(engine18, Remote, install=True)
    [declaration] = declared(Remote)
    registered = replace(declaration.spec, encoder=dict(OpenAI("m", dim=4, base_url="http://elsewhere/v1").config))
    with engine18.begin() as connection:
        register_spec(connection, registered)
    factory = sessionmaker(engine18)
    install(factory)
    with factory.begin() as session:
        session.add(Item(name="by a session"))
    sql(engine18, "INSERT INTO items (name) VALUES ('by anyone')")
    assert embeddb.drain(engine18, Remote).embedded == 1
    assert seen == [declaration.encoder] * 2


def test_a_registered_encoder_that_is_not_here_is_told_beside_the_declared_one(sessions: sessionmaker[Session]) -> None:
    engine = sessions.kw["bind"]
    sql(engine, "UPDATE articles SET embedding = NULL")
    with engine.begin() as connection:
        register_spec(connection, replace(spec(OLD), encoder={"type": "words", "model": "/not/here"}))
    started_now = create_engine(engine.url)
    with sessions(bind=started_now) as session:
        search = nearest(Article.embedding, "title 1").limit(1)
        with pytest.raises(EncoderError, match=r"/not/here.* the model declares Hashing\(dim=32\)"):
            session.scalars(search).all()
    started_now.dispose()
