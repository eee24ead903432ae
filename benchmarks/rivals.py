"""embeddb and the stores that it is compared with, each behind the same three calls: load, look so far, search.

Every one is used as its own documentation shows, gets the same vectors, cosine distance and, where it has one, an HNSW
graph with m 16 and ef_construction 64; ``tune`` sets by hand how far it looks. A search gives ids with their texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from pgvector.sqlalchemy import VECTOR as STOCK
from psycopg.sql import SQL
from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.generated import Array, K
from benchmarks.table import TITLE, build, fill, look, model, searching
from embeddb import HNSW, nearest
from embeddb.spec import VectorIndex


class Rival:
    """What is asked of each."""

    name: ClassVar[str]
    #: How far to look, of which the first is taken that reaches the recall.
    efforts: ClassVar[tuple[int, ...]] = (10, 12, 16, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1000)

    def __init__(self, url: str, folder: str) -> None:
        """``url``: of a database; ``folder``: for those that live in files."""
        self.url = url
        self.folder = folder

    def load(self, vectors: Array) -> None:
        """Take the vectors in, numbered from 0, and index them."""
        raise NotImplementedError

    def tune(self, effort: int) -> None:
        """Look that far from now on."""
        raise NotImplementedError

    def search(self, query: Array) -> Sequence[int]:
        """The numbers of the rows nearest to the query."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing open."""


class Ours(Rival):
    """embeddb's nearest, with the default index; the effort is fitted by hand, as for the others."""

    name = "embeddb"
    index: VectorIndex = HNSW()
    table = "bench_report"

    def load(self, vectors: Array) -> None:
        self.engine = create_engine(self.url)
        self.row = model(self.index, self.table)
        fill(self.engine, vectors, self.table)
        build(self.engine, self.row)
        self.session = Session(self.engine)
        self.ids = searching(self.session, self.row)

    def tune(self, effort: int) -> None:
        self.session.rollback()
        with self.engine.begin() as connection:
            look(connection, self.row, effort)

    def search(self, query: Array) -> Sequence[int]:
        return self.ids(query)

    def close(self) -> None:
        self.session.close()
        self.engine.dispose()


class OursHalf(Ours):
    """The same with an index of half the size."""

    name = "embeddb, HNSW(cast=halfvec)"
    index = HNSW(cast="halfvec")
    table = "bench_report_half"


class OursColumns(Ours):
    """embeddb over the first table, asked for two columns instead of entities."""

    name = "embeddb, columns"

    def load(self, vectors: Array) -> None:
        self.engine = create_engine(self.url)
        self.row = model(self.index)
        self.session = Session(self.engine)

    def search(self, query: Array) -> Sequence[int]:
        statement = nearest(self.row.embedding, query).with_only_columns(self.row.id, self.row.title).limit(K)
        return [row.id for row in self.session.execute(statement)]


class _Base(DeclarativeBase):
    pass


class _Stock(_Base):
    __tablename__ = "bench_report"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(STOCK())


class PgvectorSQLAlchemy(Rival):
    """The ORM with pgvector's own type, over the table and the index of embeddb itself."""

    name = "pgvector.sqlalchemy"

    def load(self, vectors: Array) -> None:
        self.engine: Engine = create_engine(self.url)
        self.session = Session(self.engine)

    def tune(self, effort: int) -> None:
        self.session.execute(text(f"SET hnsw.ef_search = {effort:d}"))

    def search(self, query: Array) -> Sequence[int]:
        statement = select(_Stock).order_by(_Stock.embedding.cosine_distance(query)).limit(K)
        return [row.id for row in self.session.scalars(statement)]

    def close(self) -> None:
        self.session.close()
        self.engine.dispose()


class PgvectorColumns(PgvectorSQLAlchemy):
    """The same, asked for two columns instead of entities."""

    name = "pgvector.sqlalchemy, columns"

    def search(self, query: Array) -> Sequence[int]:
        statement = select(_Stock.id, _Stock.title).order_by(_Stock.embedding.cosine_distance(query)).limit(K)
        return [row.id for row in self.session.execute(statement)]


class Psycopg(Rival):
    """psycopg by hand over that table: a prepared statement, everything in binary."""

    name = "psycopg, prepared, binary"

    def load(self, vectors: Array) -> None:
        dsn = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
        register_vector(self.connection)

    def tune(self, effort: int) -> None:
        self.connection.execute(SQL("SET hnsw.ef_search = {}").format(effort))

    def search(self, query: Array) -> Sequence[int]:
        statement = "SELECT id, title FROM bench_report ORDER BY embedding <=> %b LIMIT %b"
        with self.connection.cursor(binary=True) as cursor:
            return [row[0] for row in cursor.execute(statement, (query, K))]

    def close(self) -> None:
        self.connection.close()


class LangChain(Rival):
    """langchain-postgres: PGVectorStore, whose calls go through an event loop in a thread of its own."""

    name = "langchain-postgres"

    def load(self, vectors: Array) -> None:
        stores, indexes = import_module("langchain_postgres"), import_module("langchain_postgres.v2.indexes")
        embeddings = import_module("langchain_core.embeddings")
        self.options = indexes.HNSWQueryOptions
        self.engine = stores.PGEngine.from_connection_string(self.url)
        self.engine.init_vectorstore_table("bench_langchain", vectors.shape[1], overwrite_existing=True)
        unused = embeddings.DeterministicFakeEmbedding(size=vectors.shape[1])
        self.store = stores.PGVectorStore.create_sync(self.engine, unused, "bench_langchain")
        ids = [f"00000000-0000-0000-0000-{number:012d}" for number in range(len(vectors))]
        for first in range(0, len(vectors), 5000):
            part = slice(first, first + 5000)
            titles = [TITLE.format(number) for number in range(first, first + len(ids[part]))]
            self.store.add_embeddings(titles, vectors[part].tolist(), ids=ids[part])
        self.store.apply_vector_index(indexes.HNSWIndex(name="bench_langchain_hnsw"))

    def tune(self, effort: int) -> None:
        # The options are the store's, of the asynchronous one that it wraps.
        self.store._PGVectorStore__vs.index_query_options = self.options(ef_search=effort)

    def search(self, query: Array) -> Sequence[int]:
        found = self.store.similarity_search_by_vector(query.tolist(), k=K)
        return [int(str(document.id)[-12:]) for document in found]


class LlamaIndex(Rival):
    """LlamaIndex's PGVectorStore."""

    name = "LlamaIndex PGVectorStore"

    def load(self, vectors: Array) -> None:
        stores, schema = import_module("llama_index.vector_stores.postgres"), import_module("llama_index.core.schema")
        self.asking = import_module("llama_index.core.vector_stores").VectorStoreQuery
        with create_engine(self.url).begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS data_bench_llama"))
        self.store = stores.PGVectorStore.from_params(
            connection_string=make_url(self.url).set(drivername="postgresql+psycopg2"),  # it sends SET with a parameter
            async_connection_string=make_url(self.url).set(drivername="postgresql+psycopg_async"),
            table_name="bench_llama",
            embed_dim=vectors.shape[1],
            use_jsonb=True,
            hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
        )
        for first in range(0, len(vectors), 5000):
            nodes = [
                schema.TextNode(id_=str(number), text=TITLE.format(number), embedding=vectors[number].tolist())
                for number in range(first, min(first + 5000, len(vectors)))
            ]
            self.store.add(nodes)

    def tune(self, effort: int) -> None:
        self.effort = effort

    def search(self, query: Array) -> Sequence[int]:
        asked = self.asking(query_embedding=query.tolist(), similarity_top_k=K)
        return [int(key) for key in self.store.query(asked, hnsw_ef_search=self.effort).ids or ()]


class LanceDB(Rival):
    """LanceDB in this process, its HNSW over scalar-quantised vectors, refined by the vectors themselves."""

    name = "LanceDB"

    def load(self, vectors: Array) -> None:
        lancedb, pa = import_module("lancedb"), import_module("pyarrow")
        columns = {
            "id": np.arange(len(vectors)),
            "title": [TITLE.format(number) for number in range(len(vectors))],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        }
        database = lancedb.connect(self.folder)
        self.table = database.create_table("bench", pa.table(columns), mode="overwrite")
        self.table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=64)

    def tune(self, effort: int) -> None:
        self.effort = max(effort, 2 * K)  # as many as are refined

    def search(self, query: Array) -> Sequence[int]:
        asked = self.table.search(query).nprobes(1).ef(self.effort).refine_factor(2).limit(K)
        asked = asked.select(["id", "title", "_distance"])
        return [row["id"] for row in asked.to_list()]


class Chroma(Rival):
    """Chroma in this process and in memory."""

    name = "Chroma"
    efforts = (10, 20, 40, 80, 160, 320)

    def load(self, vectors: Array) -> None:
        self.vectors = vectors
        chromadb = import_module("chromadb")
        self.client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))

    def tune(self, effort: int) -> None:
        # It takes a change of ef_search, and goes on as before: so all anew.
        self.close()
        settings: Any = {"hnsw": {"space": "cosine", "max_neighbors": 16, "ef_construction": 64, "ef_search": effort}}
        self.collection = self.client.create_collection("bench", configuration=settings, embedding_function=None)
        for first in range(0, len(self.vectors), 5000):
            numbers = range(first, min(first + 5000, len(self.vectors)))
            titles = [TITLE.format(number) for number in numbers]
            part: Any = self.vectors[first : first + 5000]
            self.collection.add(ids=[str(number) for number in numbers], embeddings=part, documents=titles)

    def search(self, query: Array) -> Sequence[int]:
        asked: Any = [query]
        found = self.collection.query(query_embeddings=asked, n_results=K, include=["documents"])
        return [int(key) for key in found["ids"][0]]

    def close(self) -> None:
        for collection in self.client.list_collections():
            self.client.delete_collection(collection.name)


STORES: tuple[type[Rival], ...] = (
    Ours,
    OursColumns,
    OursHalf,
    PgvectorSQLAlchemy,
    PgvectorColumns,
    Psycopg,
    LangChain,
    LlamaIndex,
    LanceDB,
    Chroma,
)
