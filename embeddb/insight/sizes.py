"""What vectors and their indexes take on disk, computed from the layout of Postgres's pages and pgvector's tuples.

Layouts: ``hnsw.h`` and ``ivfflat.h`` in https://github.com/pgvector/pgvector/tree/master/src, and "Database Page
Layout" and "TOAST" in the manual of Postgres.
"""

from __future__ import annotations

from typing import Final

from embeddb.metrics import Storage
from embeddb.spec import HNSW, VectorIndex

PAGE: Final = 8192
#: A page less its header and what pgvector keeps at its end.
_INDEX_ROOM: Final = PAGE - 24 - 8
_POINTER: Final = 4
#: An element of HNSW without its vector; its links; what a tuple of links has besides.
_ELEMENT: Final = 72
_LINK: Final = 6
_LINKS: Final = 4
_INDEX_TUPLE: Final = 8
#: Above this a row's vector goes out of line, in chunks.
_TOAST_ABOVE: Final = 2032
_CHUNK: Final = 1996
_CHUNKS_PER_PAGE: Final = 4
_CHUNK_INDEX: Final = 20


def vector_bytes(dim: int, kind: str) -> int:
    """One vector in memory; ``kind``: vector, halfvec or bit."""
    return 8 + {"vector": 4 * dim, "halfvec": 2 * dim, "bit": -(-dim // 8)}[kind]


def column_bytes(dim: int, storage: Storage) -> float:
    """What a vector adds to its row, out of line where that is where it goes."""
    size = vector_bytes(dim, storage)
    if size + 32 <= _TOAST_ABOVE:
        return size
    chunks = -(-size // _CHUNK)
    whole, rest = divmod(size, _CHUNK)
    return whole * PAGE / _CHUNKS_PER_PAGE + (rest + 40 if rest else 0) + chunks * _CHUNK_INDEX + 18


def held(index: VectorIndex, storage: Storage) -> str:
    """What an index holds: vector, halfvec or bit."""
    return "bit" if index.cast == "binary" else index.cast or storage


def index_bytes(rows: float, dim: int, storage: Storage, index: VectorIndex) -> float:
    """An index over so many rows, freshly built.

    HNSW: an element and the tuple of its links lie on one page where they fit; a level l holds 1 in m^l of the
    elements, so that they have 2 + 1 / (m - 1) times m links on average. IVFFlat: tuples fill pages, the last one of
    each list by half, and each list has a page at least, and a centre.
    """
    size = vector_bytes(index.prefix or dim, held(index, storage))
    if isinstance(index, HNSW):
        element = _aligned(_ELEMENT + size)
        links = _aligned(_LINKS + round((2 + 1 / (index.m - 1)) * index.m * _LINK))
        both = element + links + 2 * _POINTER
        if both <= _INDEX_ROOM:
            return rows * PAGE / (_INDEX_ROOM // both)
        return rows * PAGE * (1 + 1 / (_INDEX_ROOM // (links + _POINTER)))
    per_page = _INDEX_ROOM // (_aligned(_INDEX_TUPLE + size) + _POINTER)
    centres = index.lists * PAGE / max(1, _INDEX_ROOM // (_aligned(16 + size) + _POINTER))
    return index.lists * PAGE * max(1, rows / index.lists / per_page + 0.5) + centres


def graph_bytes(rows: float, dim: int, storage: Storage, index: HNSW) -> float:
    """What an HNSW build keeps in memory, as measured by where it says that its graph no longer fits."""
    return rows * (196 + 32 * index.m + vector_bytes(index.prefix or dim, held(index, storage)))


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
