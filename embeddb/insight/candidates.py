"""Ways to store and index an embedding, and what each is expected to take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from embeddb.errors import DeclarationError
from embeddb.insight.sample import Subject
from embeddb.insight.sizes import column_bytes, held, index_bytes, vector_bytes
from embeddb.metrics import Storage, check_metric
from embeddb.spec import HNSW, IVFFlat, VectorIndex, check_indexable

#: Below so many dimensions bits, or half of the numbers, tell too little.
WIDE: Final = 128
_MILLION: Final = 1_000_000
_HALF_A_MISS: Final = 0.5


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

    def scaled(self, share: float) -> Candidate:
        """For that share of the rows: lists of as many rows each, at least 10 of them."""
        if isinstance(self.index, HNSW):
            return self
        return replace(self, index=replace(self.index, lists=max(10, round(self.index.lists * share))))

    def column(self, rows: float, dim: int) -> float:
        """Bytes of the column's vectors."""
        return rows * column_bytes(dim, self.storage)

    def size(self, rows: float, dim: int) -> float:
        """Bytes of the index."""
        return index_bytes(rows, dim, self.storage, self.index)

    def work(self, rows: float, dim: int) -> float:
        """How long a build takes, in units that ``calibrate`` measures.

        HNSW looks at about (m + ef_construction) × log2(rows) vectors for each row; IVFFlat at each list for each
        row, and at each list for each of 50 rows a list in some ten rounds of k-means, at half the cost. A vector
        costs 0.4 of a unit, and 0.6 by its bytes over 1,536. Fitted to builds of 100,000 rows of 384 dimensions: HNSW
        (16, 64) 68 s, (24, 200) 194 s, of halfvecs 51 s, of bits 28 s; IVFFlat of 100 lists 3.6 s.
        """
        each = 0.4 + 0.6 * vector_bytes(self.index.prefix or dim, held(self.index, self.storage)) / 1536
        if isinstance(self.index, HNSW):
            return rows * math.log2(rows + 2) * (self.index.m + self.index.ef_construction) * each
        return 0.5 * (rows * self.index.lists + 500 * self.index.lists**2) * each


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
    wide = subject.dim >= WIDE
    choices: list[tuple[Storage, VectorIndex]] = [
        (subject.storage, HNSW()),
        (subject.storage, HNSW(m=24, ef_construction=200)),
        (subject.storage, IVFFlat(lists=lists_for(rows))),
    ]
    if subject.storage == "vector":
        choices += [("vector", HNSW(cast="halfvec")), ("halfvec", HNSW())]
    if wide:
        choices += [(subject.storage, HNSW(cast="binary")), (subject.storage, HNSW(prefix=subject.dim // 2))]
    for storage, index in choices:
        try:
            check_metric(subject.metric, storage, index.method, index.cast)
            check_indexable(index, storage, subject.dim, subject.name)
        except DeclarationError:
            continue
        yield Candidate(storage, index)


def grown(recall: float, sampled: float, rows: float, asked: int) -> float:
    """The recall to expect of ``rows``, where ``sampled`` gave ``recall`` of ``asked`` neighbours.

    Misses grow with the depth of the graph, which is the logarithm of the rows; where none was seen, half a one is
    supposed.
    """
    missed = max(1 - recall, _HALF_A_MISS / asked)
    return max(0.0, 1 - missed * math.log(max(rows, sampled, 2)) / math.log(max(sampled, 2)))
