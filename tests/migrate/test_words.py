"""What differs is told in a sentence, whatever the operation that would mend it."""

from __future__ import annotations

import pytest
from alembic.operations import MigrateOperation, ops
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.column_operations import AddEmbeddingColumnOp, DropEmbeddingColumnOp
from embeddb.migrate.embedding_operations import (
    AlterEmbeddingOp,
    CreateEmbeddingOp,
    DisarmEmbeddingOp,
    DropEmbeddingOp,
    RefreshEmbeddingOp,
)
from embeddb.migrate.index_operations import CreateVectorIndexOp, DropVectorIndexOp, ReplaceVectorIndexOp, VectorIndex
from embeddb.migrate.reembed_operations import (
    AbandonEmbeddingOp,
    ExpandEmbeddingOp,
    RollBackEmbeddingOp,
    SwapEmbeddingOp,
)
from embeddb.migrate.rename_operations import RenameEmbeddedColumnOp, RenameEmbeddedTableOp
from embeddb.migrate.words import all_in_words
from embeddb.spec import EmbeddingSpec

TABLE = Table("books", MetaData(), Column("id", Integer, primary_key=True), Column("title", Text), schema="lib")
SPEC = EmbeddingSpec(
    table="books", column="embedding", sources=("title",), encoder={"type": "hashing", "dim": 8}, dim=8
)
INDEX = VectorIndex("ix", "books", "embedding", "hnsw", "vector_l2_ops", options={"m": 8}, where="id > 1")
NAME = ("books", "embedding", "lib")
COLUMN = ("books", "embedding", "halfvec", 8, "lib")

SENTENCES: list[tuple[MigrateOperation, str]] = [
    (InstallEmbeddbOp(), "the catalog is not installed, and models declare embeddings"),
    (UpgradeEmbeddbOp(9, 7), "the catalog is at version 7, and this package has 9"),
    (AddEmbeddingColumnOp(*COLUMN), "column books.embedding: declared as halfvec(8), and not there"),
    (DropEmbeddingColumnOp(*COLUMN, "drop"), "column books.embedding: there, with vectors, and no model declares it"),
    (CreateEmbeddingOp(SPEC), "books.embedding: declared, and not registered: no trigger queues its rows"),
    (DropEmbeddingOp(*NAME), "lib.books.embedding: registered, and no model declares it"),
    (
        AlterEmbeddingOp(*NAME, {"mode": "queued"}, {"mode": "inline"}),
        "lib.books.embedding: mode is 'queued' in the models and 'inline' in the database",
    ),
    (RefreshEmbeddingOp(*NAME), "lib.books.embedding: its triggers or functions are not as they should be"),
    (
        ExpandEmbeddingOp(SPEC),
        "books.embedding: the models declare another encoder than the one whose vectors are there",
    ),
    (SwapEmbeddingOp(*NAME), "lib.books.embedding: the declared encoder's vectors are ready, and do not serve yet"),
    (
        AbandonEmbeddingOp(*NAME),
        "lib.books.embedding: its encoder is being changed, and the models declare the one that it has",
    ),
    (
        RollBackEmbeddingOp(*NAME),
        "lib.books.embedding: its encoder was exchanged, and the models declare the one before: declare the new one",
    ),
    (
        CreateVectorIndexOp(INDEX),
        "index ix: declared on books (hnsw, embedding, vector_l2_ops, m=8, where id > 1), and not there",
    ),
    (DropVectorIndexOp(INDEX), "index ix: there on books, and no model declares it as it is"),
    (RenameEmbeddedTableOp("books", "works", "lib", {}), "table books: seems to be called works in the models"),
    (
        RenameEmbeddedColumnOp("books", "title", "name", "lib", {}),
        "column books.title: seems to be called name in the models",
    ),
    (ops.CreateTableOp.from_table(TABLE), "table books: declared, and not there"),
    (ops.DropTableOp.from_table(TABLE), "table books: there, and no model declares it"),
    (ops.AddColumnOp("books", Column("pages", Integer)), "column books.pages: declared, and not there"),
    (ops.DropColumnOp("books", "pages"), "column books.pages: there, and no model declares it"),
    (
        ops.AlterColumnOp(
            "books",
            "pages",
            existing_type=Text(),
            modify_type=Integer(),
            modify_nullable=False,
            modify_server_default="0",
        ),
        "column books.pages: its type is INTEGER in the models and TEXT in the database; the models want it NOT NULL; "
        "its server default differs",
    ),
    (ops.CreateIndexOp("by_title", "books", ["title"]), "index by_title: declared on books, and not there"),
    (
        ops.DropIndexOp.from_index(Index("by_title", TABLE.c.title)),
        "index by_title: there on books, and no model declares it as it is",
    ),
]


@pytest.mark.parametrize(("operation", "sentence"), SENTENCES, ids=lambda value: type(value).__name__)
def test_a_sentence_for_each(operation: MigrateOperation, sentence: str) -> None:
    assert list(all_in_words([ops.ModifyTableOps("books", [operation])])) == [sentence]


def test_an_index_that_is_to_be_built_anew_is_one_difference() -> None:
    other = VectorIndex("ix", "books", "embedding", "ivfflat", "vector_l2_ops", options={"lists": 9})
    told = list(all_in_words([DropVectorIndexOp(INDEX), DisarmEmbeddingOp(*NAME), CreateVectorIndexOp(other)]))
    assert told == [
        "index ix: (ivfflat, embedding, vector_l2_ops, lists=9) in the models and "
        "(hnsw, embedding, vector_l2_ops, m=8, where id > 1) in the database"
    ]
    assert list(all_in_words([ReplaceVectorIndexOp(other, INDEX)])) == told
    [same] = all_in_words([DropVectorIndexOp(INDEX), CreateVectorIndexOp(INDEX)])
    assert same.startswith("index ix: there, and invalid")


def test_what_has_no_words_of_its_own_is_told_as_alembic_has_it() -> None:
    unique = UniqueConstraint(TABLE.c.title, name="one_title")
    [told] = all_in_words([ops.AddConstraintOp.from_constraint(unique)])
    assert told.startswith("add_constraint UniqueConstraint")
