"""Sessions and models of other libraries, and what stands between a declaration and its table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import (
    URL,
    Column,
    Engine,
    ForeignKey,
    Integer,
    Table,
    Text,
    create_engine,
    create_mock_engine,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry, sessionmaker

from embeddb import Vector, embedding_column, install, nearest, register
from embeddb.encoders import Hashing, SentenceTransformer
from embeddb.errors import EncoderError, PgvectorMissing, PgvectorOutdated
from tests.orm.models import Article, violations
from tests.orm.models import Base as Shared

HASHING = Hashing(dim=16)


def expected(text: str) -> Vector:
    vector: Vector = HASHING.encode_documents([text])[0]
    return vector


def test_flask_sqlalchemy(url18: URL) -> None:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    class Base(DeclarativeBase):
        pass

    db: Any = SQLAlchemy(model_class=Base)

    class Note(db.Model):  # type: ignore[misc]
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING)

    app = Flask("notes")
    app.config["SQLALCHEMY_DATABASE_URI"] = url18
    db.init_app(app)
    with app.app_context():
        db.create_all()
        install(db.session)
        db.session.add(Note(body="flying boats"))
        db.session.execute(insert(Note), [{"body": "bread rises"}])
        db.session.commit()
        found = db.session.scalars(nearest(Note.embedding, "boats").limit(1)).one()
        assert found.body == "flying boats"
        db.session.remove()
        db.engine.dispose()


def test_sqlmodel(engine18: Engine) -> None:
    import sqlmodel

    class Own(sqlmodel.SQLModel, registry=registry()):
        pass

    class Post(Own, table=True):
        __tablename__ = "posts"
        id: int | None = sqlmodel.Field(default=None, primary_key=True)
        body: str
        embedding: Any = sqlmodel.Field(default=None, sa_column=embedding_column("body", encoder=HASHING).column)

    class OwnSession(sqlmodel.Session):
        pass

    Own.metadata.create_all(engine18)
    install(OwnSession)
    with OwnSession(engine18) as session:
        session.add(Post(body="flying boats"))
        session.add(Post(body="bread rises"))
        session.commit()
        embedding: Any = Post.embedding
        found = session.scalars(nearest(embedding, "boats").limit(1)).one()
        assert found.body == "flying boats"
        assert np.array_equal(found.embedding, expected("flying boats"))


def test_inherited_models(engine18: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        name: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("name", encoder=HASHING)
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}

    class Book(Item):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
        blurb: Mapped[str | None]
        blurb_embedding: Mapped[Vector | None] = embedding_column("blurb", encoder=HASHING)
        __mapper_args__ = {"polymorphic_identity": "book"}

    class Toy(Item):
        colour: Mapped[str | None]
        colour_embedding: Mapped[Vector | None] = embedding_column("name", "colour", encoder=HASHING)
        __mapper_args__ = {"polymorphic_identity": "toy"}

    Base.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    with factory() as session:
        session.add_all(
            [Item(name="nail"), Book(name="Walden", blurb="life in the woods"), Toy(name="kite", colour="red")]
        )
        session.commit()
        book = session.scalars(select(Book)).one()
        toy = session.scalars(select(Toy)).one()
        assert np.array_equal(book.embedding, expected("Walden"))  # type: ignore[arg-type]
        assert np.array_equal(book.blurb_embedding, expected("life in the woods"))  # type: ignore[arg-type]
        assert np.array_equal(toy.colour_embedding, expected("kite\nred"))  # type: ignore[arg-type]
        book.name, book.blurb = "On Walden", "a pond"
        session.execute(insert(Book), [{"name": "bulk", "blurb": "inserted"}])
        session.commit()
        assert np.array_equal(book.embedding, expected("On Walden"))  # type: ignore[arg-type]
        assert np.array_equal(book.blurb_embedding, expected("a pond"))  # type: ignore[arg-type]
        inserted = session.scalars(select(Book).where(Book.name == "bulk")).one()
        assert np.array_equal(inserted.embedding, expected("bulk"))  # type: ignore[arg-type]
        assert np.array_equal(inserted.blurb_embedding, expected("inserted"))  # type: ignore[arg-type]
        assert session.scalars(nearest(Book.blurb_embedding, "pond").limit(1)).one() is book
        assert session.scalars(nearest(Book.embedding, "Walden").limit(1)).one() is book
        assert session.scalars(nearest(Item.embedding, "kite").limit(1)).one() is toy
        assert session.scalars(nearest(Book.blurb_embedding, book).limit(1)).one() is book
        session.execute(update(Book).values(blurb=Book.blurb + " again").where(Book.blurb == "a pond"))
        session.execute(update(Book), [{"id": inserted.id, "name": "renamed", "blurb": "rewritten"}])
        session.execute(update(Item).values(name=Item.name + "s"))
        session.execute(update(Toy).values(name="kites", colour="green"))
        session.execute(update(Item).where(Item.name == "renameds").values(name="given"))  # and none of it is a toy
        session.commit()
        stored = {row.name: row for row in session.execute(select(Item.__table__))}
        assert np.array_equal(stored["On Waldens"].embedding, expected("On Waldens"))
        assert np.array_equal(stored["given"].embedding, expected("given"))
        assert np.array_equal(stored["kites"].embedding, expected("kites"))
        assert np.array_equal(stored["kites"].colour_embedding, expected("kites\ngreen"))
        assert stored["given"].colour_embedding is None
        assert stored["nails"].colour_embedding is None
        blurbs = {row.blurb: row for row in session.execute(select(Book.__table__))}
        for blurb in ("a pond again", "rewritten"):
            assert np.array_equal(blurbs[blurb].blurb_embedding, expected(blurb))


def test_a_mapped_table_whose_columns_have_keys(engine18: Engine) -> None:
    class Page:
        id: int
        text: str
        embedding: Vector | None

        def __init__(self, text: str) -> None:
            self.text = text

    mapped = registry()
    column = embedding_column("text", encoder=HASHING, name="vector").column
    table = Table("pages", mapped.metadata, Column("id", Integer, primary_key=True), Column("t", Text, key="k"), column)
    mapped.map_imperatively(Page, table, properties={"text": table.c.k, "embedding": table.c.vector})
    mapped.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    with factory() as session:
        session.add_all([Page("one"), Page("two")])
        session.commit()
        statement = pg_insert(Page)
        upsert = statement.on_conflict_do_update(index_elements=["id"], set_={"k": statement.excluded.k})
        session.execute(upsert, [{"id": 1, "text": "three"}])
        session.execute(update(Page).where(table.c.k == "two").values({"text": "four"}))
        session.execute(insert(Page).values({"k": "five"}))
        session.commit()
        rows = session.execute(select(table).order_by(table.c.id)).all()
        assert [row.k for row in rows] == ["three", "four", "five"]
        assert all(np.array_equal(row.vector, expected(row.k)) for row in rows)


class FailingBase(DeclarativeBase):
    pass


class Failing:
    """An encoder that fails, unless it is told not to."""

    modality = "text"
    dim = 16
    fingerprint = "failing"
    config = {"type": "failing"}
    fails = True

    def encode_documents(self, inputs: Any) -> Any:
        if self.fails:
            raise RuntimeError("no memory left")
        return HASHING.encode_documents(inputs)

    encode_queries = encode_documents


FAILING: Any = Failing()


class Queued(FailingBase):
    __tablename__ = "queued"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("body", encoder=FAILING, on_error="queue")


@pytest.fixture
def failing(engine18: Engine) -> sessionmaker[Session]:
    FailingBase.metadata.create_all(engine18)
    factory = sessionmaker(engine18)
    install(factory)
    FAILING.fails = True
    return factory


def test_a_failing_encoder_hands_over_to_the_queue(failing: sessionmaker[Session], engine18: Engine) -> None:
    register(engine18, FailingBase, install=True)
    with failing() as session:
        session.add(Queued(id=1, body="flushed"))
        session.execute(insert(Queued), [{"id": 2, "body": "inserted"}])
        session.commit()
        waiting = text("SELECT jsonb_array_elements(keys) FROM embeddb.job")
        assert set(session.scalars(waiting)) == {1, 2}
        FAILING.fails = False
        row = session.get_one(Queued, 1)
        row.body = "changed"
        session.commit()
        assert np.array_equal(row.embedding, expected("changed"))  # type: ignore[arg-type]
        FAILING.fails = True
        row.body = "changed again"
        session.commit()
        assert np.array_equal(row.embedding, expected("changed"))  # type: ignore[arg-type]
        assert 1 in session.scalars(waiting).all()


def test_what_a_session_embeds_leaves_no_job(engine18: Engine) -> None:
    Shared.metadata.create_all(engine18)
    register(engine18, Shared, install=True)
    factory = sessionmaker(engine18)
    install(factory)

    @event.listens_for(Article, "before_update")
    def shorten(mapper: Any, connection: Any, article: Article) -> None:
        if article.title.startswith("late"):
            article.body = "changed by a listener"

    with factory() as session:
        session.add_all([Article(id=1, title="one"), Article(id=2, title="two"), Article(id=3, title="three")])
        session.execute(insert(Article), [{"id": 4, "title": "four"}])
        session.execute(update(Article).where(Article.id < 3).values(body="of two rows"))
        session.execute(update(Article), [{"id": 3, "title": "by key"}])
        session.bulk_update_mappings(Article, [{"id": 4, "body": "by mapping"}])
        upsert = pg_insert(Article).values(id=1, title="uno", body="one")
        taken = {"title": upsert.excluded.title, "body": upsert.excluded.body}
        session.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=taken))
        session.get_one(Article, 2).title = "late"
        session.get_one(Article, 3).year = 1999
        session.commit()
        assert violations(session) == []
        assert session.scalars(text("SELECT keys FROM embeddb.job")).all() == []
    event.remove(Article, "before_update", shorten)


def test_without_a_queue_the_failure_is_raised(failing: sessionmaker[Session]) -> None:
    with failing() as session:
        session.add(Queued(id=1, body="lost otherwise"))
        with pytest.raises(EncoderError, match=r"no memory left.*queued\.embedding.*no queue.*embeddb\.register"):
            session.flush()
        with pytest.raises(EncoderError, match="no queue"):
            session.execute(insert(Queued), [{"id": 2, "body": "inserted"}])


def test_create_all_says_that_pgvector_is_missing(url18: URL) -> None:
    engine = create_engine(url18)
    with engine.begin() as connection:
        connection.execute(text("DROP EXTENSION vector"))
    with pytest.raises(PgvectorMissing, match=rf"{url18.database}.*CREATE EXTENSION vector"):
        FailingBase.metadata.create_all(engine)
    engine.dispose()


def test_create_all_says_whose_dimensions_nobody_knows(engine18: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column(
            "body", encoder=SentenceTransformer("not-here", local_files_only=True)
        )

    with pytest.raises(EncoderError, match=r"^notes\.embedding: how many dimensions .*'not-here'.*[^.]\. Say dim="):
        Base.metadata.create_all(engine18)


def test_create_all_says_that_pgvector_is_too_old(engine18: Engine) -> None:
    with engine18.begin() as connection:
        connection.execute(text("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'"))
    with pytest.raises(PgvectorOutdated, match=r"0\.7\.4.*ALTER EXTENSION vector UPDATE"):
        FailingBase.metadata.create_all(engine18)


def test_ddl_can_be_written_without_a_database() -> None:
    statements: list[str] = []
    engine: Any = create_mock_engine(
        "postgresql+psycopg://", lambda statement, *args, **options: statements.append(str(statement.compile(engine)))
    )
    FailingBase.metadata.create_all(engine, checkfirst=False)
    assert "vector(16)" in statements[0]
    assert "USING hnsw" in statements[1]
