"""Declarations: every shape of model that a team has, and the words of every refusal."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Computed, Enum, ForeignKey, Integer, MetaData, Text, create_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    configure_mappers,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from embeddb import HALFVEC, HNSW, EmbeddingSpec, IVFFlat, Vector, declared, embedding_column
from embeddb.encoders import Hashing
from embeddb.errors import DeclarationError, EncoderNotFound

HASHING = Hashing(dim=32)
DIALECT: Any = create_engine("postgresql+psycopg://").dialect


@pytest.fixture
def base() -> type[DeclarativeBase]:
    class Base(DeclarativeBase):
        metadata = MetaData()

    return Base


def ddl(element: Any) -> str:
    return " ".join(str(element.compile(dialect=DIALECT)).split())


def test_one_source(base: type[DeclarativeBase]) -> None:
    class Article(base):  # type: ignore[valid-type, misc]
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING)

    (declaration,) = declared(base)
    assert declaration.spec == EmbeddingSpec(
        table="articles", column="embedding", sources=("body",), encoder=dict(HASHING.config), dim=32
    )
    assert declaration.mapper is not None
    assert declaration.mapper.class_ is Article
    assert declaration.sources == (Article.__table__.c.body,)
    table = Article.__table__
    assert "embedding vector(32)," in ddl(CreateTable(table))
    (index,) = table.indexes
    assert ddl(CreateIndex(index)) == (
        "CREATE INDEX ix_articles_embedding_hnsw ON articles USING hnsw (embedding vector_cosine_ops) "
        "WITH (m = 16, ef_construction = 64)"
    )
    assert declaration.mapper.column_attrs["embedding"].deferred


@pytest.mark.parametrize(
    ("options", "column", "index"),
    [
        ({"metric": "l2"}, "vector(32)", "USING hnsw (embedding vector_l2_ops) WITH (m = 16, ef_construction = 64)"),
        (
            {"metric": "inner_product", "storage": "halfvec", "index": IVFFlat(lists=7)},
            "halfvec(32)",
            "USING ivfflat (embedding halfvec_ip_ops) WITH (lists = 7)",
        ),
        (
            {"index": HNSW(cast="halfvec", m=8)},
            "vector(32)",
            "USING hnsw (CAST(embedding AS halfvec(32)) halfvec_cosine_ops) WITH (m = 8, ef_construction = 64)",
        ),
        (
            {"index": HNSW(cast="binary")},
            "vector(32)",
            "USING hnsw (CAST(binary_quantize(embedding) AS bit(32)) bit_hamming_ops) "
            "WITH (m = 16, ef_construction = 64)",
        ),
        (
            {"index": HNSW(prefix=8)},
            "vector(32)",
            "USING hnsw (CAST(subvector(embedding, 1, 8) AS vector(8)) vector_cosine_ops) "
            "WITH (m = 16, ef_construction = 64)",
        ),
        ({"index": None}, "vector(32)", None),
    ],
)
def test_index_forms(base: type[DeclarativeBase], options: dict[str, Any], column: str, index: str | None) -> None:
    class Article(base):  # type: ignore[valid-type, misc]
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING, **options)

    assert f"embedding {column}," in ddl(CreateTable(Article.__table__))
    assert [ddl(CreateIndex(i)).partition(" ON articles ")[2] for i in Article.__table__.indexes] == (
        [index] if index else []
    )


def test_attributes_are_not_columns(base: type[DeclarativeBase]) -> None:
    class Article(base):  # type: ignore[valid-type, misc]
        __tablename__ = "articles"
        __table_args__ = {"schema": "News Room"}
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column("TitleText")
        body: Mapped[str] = mapped_column("body.text")
        embedding: Mapped[Vector | None] = embedding_column(
            "title", "body", encoder=HASHING, template="{title}: {{{body}}}", name="vec"
        )

    (declaration,) = declared(base.metadata)
    assert declaration.name == "News Room.articles.vec"
    assert declaration.spec.sources == ("TitleText", "body.text")
    assert declaration.spec.template == "{TitleText}: {{{body.text}}}"
    assert declaration.key == "embedding"


def test_several_embeddings_mixins_and_abstract_bases(base: type[DeclarativeBase]) -> None:
    class Searchable:
        title: Mapped[str]
        title_embedding: Mapped[Vector | None] = embedding_column("title", encoder=HASHING)

    class Document(base):  # type: ignore[valid-type, misc]
        __abstract__ = True
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        body: Mapped[str]
        body_embedding: Mapped[Vector | None] = embedding_column("body", encoder="hashing", metric="l2")

    class Report(Searchable, Document):
        __tablename__ = "reports"

    class Memo(Searchable, Document):
        __tablename__ = "memos"
        tenant: Mapped[int] = mapped_column(primary_key=True)

    names = {declaration.name for declaration in declared(base)}
    assert names == {
        "reports.title_embedding",
        "reports.body_embedding",
        "memos.title_embedding",
        "memos.body_embedding",
    }
    for model in (Report, Memo):
        assert len(model.__table__.indexes) == 2
        assert {d.table for d in declared(base)} >= {model.__table__}


def test_single_table_inheritance(base: type[DeclarativeBase]) -> None:
    class Item(base):  # type: ignore[valid-type, misc]
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        name: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}

    class Book(Item):
        blurb: Mapped[str | None]
        embedding: Mapped[Vector | None] = embedding_column("name", "blurb", encoder=HASHING)
        __mapper_args__ = {"polymorphic_identity": "book"}

    (declaration,) = declared(base)
    assert declaration.table is Item.__table__
    assert declaration.mapper is Book.__mapper__


def test_joined_inheritance(base: type[DeclarativeBase]) -> None:
    class Item(base):  # type: ignore[valid-type, misc]
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("name", encoder=HASHING)

    class Book(Item):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
        blurb: Mapped[str]
        blurb_embedding: Mapped[Vector | None] = embedding_column("blurb", encoder=HASHING)

    assert {(d.table.name, d.key) for d in declared(base)} == {("items", "embedding"), ("books", "blurb_embedding")}

    class Bad(Item):
        __tablename__ = "bad"
        id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
        vector: Mapped[Vector | None] = embedding_column("name", encoder=HASHING)

    with pytest.raises(DeclarationError, match=r"Bad\.vector: 'name' lives in table 'items'.*'bad'.*declare"):
        configure_mappers()
    Bad.registry.dispose()


def test_dataclasses() -> None:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(init=False, primary_key=True)
        body: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING, default=None, repr=False)

    assert [d.name for d in declared(Base)] == ["notes.embedding"]
    assert Note(body="hello").embedding is None
    assert repr(Note(body="hello")) == "test_dataclasses.<locals>.Note(id=None, body='hello')"


def test_sqlmodel() -> None:
    from sqlmodel import Field, SQLModel

    class Own(SQLModel, registry=registry()):
        pass

    class Post(Own, table=True):
        __tablename__ = "posts"
        id: int | None = Field(default=None, primary_key=True)
        body: str
        embedding: Any = Field(default=None, sa_column=embedding_column("body", encoder=HASHING).column)

    (declaration,) = declared(Post.__table__.metadata)  # type: ignore[attr-defined]
    assert declaration.name == "posts.embedding"
    assert Post.__mapper__.column_attrs["embedding"].deferred  # type: ignore[attr-defined]


def test_to_metadata_copies_declaration_and_index_once(base: type[DeclarativeBase]) -> None:
    class Article(base):  # type: ignore[valid-type, misc]
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str] = mapped_column("text")
        embedding: Mapped[Vector | None] = embedding_column("body", encoder=HASHING)

    configure_mappers()
    copied = Article.__table__.to_metadata(MetaData(), schema="other")
    assert len(copied.indexes) == 1
    (declaration,) = declared(copied.metadata)
    assert declaration.name == "other.articles.embedding"
    assert declaration.spec.sources == ("text",)


class Wrong:
    """Each method declares one wrong thing on a class named Model."""

    def unknown_source(self, **kw: Any) -> dict[str, Any]:
        return {"embedding": embedding_column("titel", encoder=HASHING)}

    def own_source(self) -> dict[str, Any]:
        return {"embedding": embedding_column("embedding", encoder=HASHING)}

    def relationship_source(self) -> dict[str, Any]:
        return {"embedding": embedding_column("parent", encoder=HASHING)}

    def integer_source(self) -> dict[str, Any]:
        return {"embedding": embedding_column("year", encoder=HASHING)}

    def enum_source(self) -> dict[str, Any]:
        return {"embedding": embedding_column("kind", encoder=HASHING)}

    def not_null(self) -> dict[str, Any]:
        return {"embedding": embedding_column("title", encoder=HASHING, nullable=False)}

    def wrong_dim(self) -> dict[str, Any]:
        return {"embedding": embedding_column("title", encoder=HASHING, dim=16)}

    def too_wide_for_an_index(self) -> dict[str, Any]:
        return {"embedding": embedding_column("title", encoder=Hashing(dim=2001))}

    def prefix_too_long(self) -> dict[str, Any]:
        return {"embedding": embedding_column("title", encoder=HASHING, index=HNSW(prefix=32))}

    def inline_generated(self) -> dict[str, Any]:
        return {"embedding": embedding_column("slug", encoder=HASHING, mode="inline")}

    def changed_by_updates(self) -> dict[str, Any]:
        return {"embedding": embedding_column("touched", encoder=HASHING)}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Wrong().unknown_source, r"Model\.embedding: .*no attribute 'titel'.*did you mean 'title'"),
        (Wrong().own_source, r"Model\.embedding: .*own source"),
        (Wrong().relationship_source, r"Model\.embedding: 'parent' is not a column"),
        (Wrong().integer_source, r"Model\.embedding: .*'year'.*Computed"),
        (Wrong().enum_source, r"Model\.embedding: .*'kind'.*Computed"),
        (Wrong().not_null, r"Model\.embedding: .*remove nullable=False"),
        (Wrong().wrong_dim, r"Model\.embedding: dim=16.*32"),
        (Wrong().too_wide_for_an_index, r"Model\.embedding: .*2001.*halfvec"),
        (Wrong().prefix_too_long, r"Model\.embedding: .*prefix of 32"),
        (Wrong().changed_by_updates, r"Model\.embedding: 'touched'.*onupdate.*mode='queued'"),
        (Wrong().inline_generated, r"Model\.embedding: .*'slug'.*mode='queued'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_when_mapped(wrong: Any, words: str) -> None:
    class Base(DeclarativeBase):
        pass

    attributes = {
        "__tablename__": "models",
        "id": mapped_column(Integer, primary_key=True),
        "title": mapped_column(Text),
        "year": mapped_column(Integer),
        "kind": mapped_column(Enum("a", "b", name="kind")),
        "slug": mapped_column(Text, Computed("lower(title)")),
        "touched": mapped_column(Text, onupdate="touched"),
        "parent_id": mapped_column(ForeignKey("models.id")),
        "parent": relationship("Model"),
        **wrong(),
    }
    type("Model", (Base,), attributes)
    with pytest.raises(DeclarationError, match=words):
        configure_mappers()
    Base.registry.dispose()


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {}, "at least one source"),
        (("a", "a"), {}, "twice"),
        (("a",), {"metric": "euclid"}, "unknown metric 'euclid'"),
        (("a",), {"storage": "float"}, "storage is one of"),
        (("a",), {"mode": "later"}, "mode is one of"),
        (("a",), {"on_error": "ignore"}, "on_error is one of"),
        (("a",), {"on_update": "ignore"}, "on_update is one of"),
        (("a",), {"index": "hnsw"}, "HNSW"),
        (("a",), {"template": "{b}"}, r"\{b\}"),
        (("a", "b"), {"template": "{a}"}, "leaves out b"),
        (("a",), {"template": "{a.x}"}, r"\{a\.x\}"),
        (("a",), {"template": "{a!r}"}, "plain name"),
        (("a",), {"template": "{a"}, "cannot be read"),
    ],
)
def test_refused_at_once(arguments: tuple[str, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        embedding_column(*arguments, encoder=HASHING, **options)


def test_unknown_encoder() -> None:
    with pytest.raises(EncoderNotFound):
        embedding_column("a", encoder={"type": "no-such-encoder"})


@pytest.mark.parametrize(
    "make", [lambda: HNSW(m=1), lambda: HNSW(ef_construction=2), lambda: HNSW(m=40), lambda: IVFFlat(lists=0)]
)
def test_refused_indexes(make: Any) -> None:
    with pytest.raises(DeclarationError, match="must be"):
        make()


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}!:\x00"), min_size=1, max_size=20)


@given(
    st.builds(
        EmbeddingSpec,
        table=names,
        schema=st.none() | names,
        column=names,
        sources=st.lists(names, min_size=1, max_size=4, unique=True).map(tuple),
        encoder=st.dictionaries(names, st.integers() | names | st.none()),
        dim=st.integers(1, 1000),
        metric=st.sampled_from(["cosine", "l2", "inner_product"]),
        storage=st.sampled_from(["vector", "halfvec"]),
        index=st.none()
        | st.builds(HNSW, m=st.integers(2, 32), ef_construction=st.integers(64, 1000))
        | st.builds(IVFFlat, lists=st.integers(1, 32768), cast=st.sampled_from([None, "halfvec", "binary"])),
        mode=st.sampled_from(["inline", "queued"]),
        on_error=st.sampled_from(["raise", "queue"]),
        on_update=st.sampled_from(["keep", "clear"]),
    )
)
def test_specs_travel_as_json(spec: EmbeddingSpec) -> None:
    assert EmbeddingSpec.from_json(spec.to_json()) == spec
    assert hash(EmbeddingSpec.from_json(spec.to_json())) == hash(spec)


def test_spec_of_a_newer_version_is_not_misread() -> None:
    spec = EmbeddingSpec(table="a", column="b", sources=("c",), encoder={"type": "hashing"}, dim=3)
    with pytest.raises(DeclarationError, match="unknown keys.*temperature"):
        EmbeddingSpec.from_json(json.dumps({**spec.to_dict(), "temperature": 1}))


def test_halfvec_is_exported() -> None:
    assert HALFVEC(3).dim == 3
