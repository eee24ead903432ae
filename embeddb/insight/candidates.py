"""Ways to store and index an embedding, and what each is expected to take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from embeddb.errors import DeclarationError
from embeddb.insight.sample import Subject
from embeddb.insight.sizes import column_bytes, graph_bytes, held, index_bytes, vector_bytes
from embeddb.metrics import Storage, check_metric
from embeddb.spec import HNSW, MAX_INDEXED, Cast, IVFFlat, VectorIndex, check_indexable

#: Below so many dimensions bits, or half of the numbers, tell too little.
WIDE: Final = 128
_MILLION: Final = 1_000_000
#: Bytes of an index that a processor keeps at hand.
_CACHED: Final = 6e6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A storage and an index."""

    storage: Storage
    index: VectorIndex

    @property
    def declaration(self) -> str:
        """As ``embedding_column`` takes it: ``storage="halfvec", index=HNSW(m=24)``."""
        storage = f'storage="{self.storage}", ' if self.storage != "vector" else ""
        return f"{storage}index={index_source(self.index)}"

    @property
    def reranks(self) -> bool:
        """Whether the index holds less than the vectors, so that candidates are ranked once more."""
        return self.index.cast == "binary" or self.index.prefix is not None

    def halves(self, subject: Subject) -> bool:
        """Whether it holds in half precision what the column holds in full."""
        return subject.storage == "vector" and "halfvec" in (self.storage, self.index.cast)

    def within(self, rows: int) -> Candidate:
        """To be built over so few rows: no more lists than leave 20 rows for each, else they tell of nothing."""
        if isinstance(self.index, HNSW):
            return self
        return replace(self, index=replace(self.index, lists=max(1, min(self.index.lists, rows // 20))))

    def column(self, rows: float, dim: int) -> float:
        """Bytes of the column's vectors."""
        return rows * column_bytes(dim, self.storage)

    def size(self, rows: float, dim: int) -> float:
        """Bytes of the index."""
        return index_bytes(rows, dim, self.storage, self.index)

    def graph(self, rows: float, dim: int) -> float:
        """Bytes that the graph of an HNSW build takes, for which maintenance_work_mem should have room; else 0."""
        return graph_bytes(rows, dim, self.storage, self.index) if isinstance(self.index, HNSW) else 0.0

    def work(self, rows: float, dim: int) -> float:
        """How long a build takes one process: a measure to compare builds by, about one distance of 384 dimensions.

        HNSW looks at about (m + ef_construction) × log2(rows) vectors for each row, a third slower where they are too
        many for the processor's cache. IVFFlat looks at each list for each row and, in some rounds of k-means, for each
        of 50 rows a list, at least 10,000; and it sorts the rows. A vector costs by half what it is, by half its bytes.
        """
        each = 0.5 + 0.5 * vector_bytes(self.index.prefix or dim, held(self.index, self.storage)) / 1536
        if isinstance(self.index, HNSW):
            outgrown = min(1.0, max(0.0, math.log(max(self.size(rows, dim), 1) / _CACHED, 4)))
            looks = (self.index.m + self.index.ef_construction) * math.log2(rows + 2)
            return rows * looks * each * (1 + 0.35 * outgrown)
        sampled = min(rows, max(50 * self.index.lists, 10_000))
        return (rows * self.index.lists + 6 * sampled * self.index.lists + 300 * rows) * each


def index_source(index: VectorIndex) -> str:
    """An index as Python source, without what is the default."""
    given = (
        f'{field.name}="{value}"' if isinstance(value, str) else f"{field.name}={value}"
        for field in fields(index)
        if (value := getattr(index, field.name)) != field.default
    )
    return f"{type(index).__name__}({', '.join(given)})"


def lists_for(rows: float) -> int:
    """pgvector's advice: rows / 1000 up to a million rows, the square root beyond; 10 at least."""
    return max(10, min(32_768, round(rows / 1000 if rows <= _MILLION else math.sqrt(rows))))


def candidates(subject: Subject, rows: float) -> list[Candidate]:
    """What pgvector can build for an embedding of that metric and those dimensions, and its own index first."""
    own = [] if subject.index is None else [Candidate(subject.storage, subject.index)]
    return list(dict.fromkeys([*own, *_possible(subject, rows)]))


def _possible(subject: Subject, rows: float) -> Iterator[Candidate]:
    lists = lists_for(rows)
    choices: list[tuple[Storage, VectorIndex]] = [
        (subject.storage, HNSW()),
        (subject.storage, HNSW(m=24, ef_construction=200)),
        (subject.storage, IVFFlat(lists=lists)),
    ]
    if subject.storage == "vector":
        choices += [("vector", HNSW(cast="halfvec")), ("vector", HNSW(m=24, ef_construction=200, cast="halfvec"))]
        choices.append(("halfvec", HNSW()))
        if subject.dim > MAX_INDEXED["vector"]:
            choices.append(("vector", IVFFlat(lists=lists, cast="halfvec")))
    if subject.dim >= WIDE:
        choices.append((subject.storage, HNSW(cast="binary")))
        for prefix in (subject.dim // 2, subject.dim // 4):
            cast: Cast | None = "halfvec" if prefix > MAX_INDEXED[subject.storage] else None
            if prefix >= WIDE:
                choices.append((subject.storage, HNSW(cast=cast, prefix=prefix)))
    for storage, index in choices:
        try:
            check_metric(subject.metric, storage, index.method, index.cast)
            check_indexable(index, storage, subject.dim, subject.name)
        except DeclarationError:
            continue
        yield Candidate(storage, index)
