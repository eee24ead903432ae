"""Recall of an index, measured on the rows themselves, and the effort that reaches the recall that is wanted.

Recall@k is the share of the truly k nearest rows that an index finds. The effort, ``ef_search`` of HNSW, ``probes`` of
IVFFlat, or the candidates of an index that holds less than the vectors, is searched for by bisection, for recall grows
with it. Both searches of a query see the same rows: all happens in one snapshot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    Connection,
    Float,
    Integer,
    Table,
    bindparam,
    func,
    literal,
    select,
    text,
    true,
    type_coerce,
)
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.operators import custom_op

from embeddb.errors import CatalogError, QueryError
from embeddb.orm.effort import LEVELS, MAX_EF_SEARCH, level_of, probes, reranks
from embeddb.orm.index_expression import index_of, indexed
from embeddb.orm.query_vector import query_expression
from embeddb.query.embedding import AnyEmbedding, Embedding, in_full, resolve
from embeddb.spec import IVFFlat
from embeddb.vectors import Vector

#: Efforts that are tried lie this far apart.
STEP: Final = 1.12
#: Above so many rows the queries are sampled from random pages instead of from all rows.
FEW: Final = 200_000
#: pgvector's hnsw.ef_search.
_DEFAULT: Final = 40
#: Rows around a drawn one, of which a query is made.
NEIGHBOURS: Final = 150


@dataclass(frozen=True)
class Fit:
    """What was measured of one embedding's index.

    ``setting``: what is fitted, ef_search, probes or candidates. ``efforts``: by level of recall, the least that
    reached it, or the most there is. ``measured``: recall@k by effort. ``milliseconds``: a query's median by effort,
    with the round trip. ``rows``: those with a vector.
    """

    name: str
    index: str
    setting: str
    k: int
    target: float
    rows: int
    queries: int
    efforts: dict[float, int]
    measured: dict[int, float] = field(default_factory=dict)
    milliseconds: dict[int, float] = field(default_factory=dict)

    @property
    def column(self) -> str:
        """The vector's column."""
        return self.name.rpartition(".")[2]

    @property
    def effort(self) -> int:
        """What searches use that ask for no recall."""
        return self.efforts[self.target]

    @property
    def recall(self) -> float:
        """What those were measured at."""
        return self.measured[self.effort]

    @property
    def comment(self) -> str:
        """How the index's comment says it to ``embeddb.orm.effort``."""
        levels = " ".join(f"{level:g}={effort}" for level, effort in sorted(self.efforts.items()))
        return f"embeddb recall@{self.k}: {levels} default={self.effort}"


def measure(
    connection: Connection,
    embedding: AnyEmbedding,
    *,
    target: float = 0.95,
    k: int = 10,
    queries: int = 200,
    also: Sequence[int] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Measure recall@``k`` of an embedding's declared index against exact search, and fit it to ``target``.

    Every level that ``nearest(recall=…)`` knows is fitted along. The ``queries`` lie among rows drawn at random.
    ``also``: more efforts to measure. ``connection``: in no transaction yet; all runs in one of its own, REPEATABLE
    READ and read only, and every row is read once for each query. Raises QueryError where there is no index, or fewer
    than ``2 * k`` rows.
    """
    found = resolve(embedding, "recall")
    level_of(target)
    if not 1 <= k <= MAX_EF_SEARCH // 2:
        raise QueryError(f"k is between 1 and {MAX_EF_SEARCH // 2}, not {k}")
    search = _Search(connection, found, k)
    with _snapshot(connection):
        rows = connection.scalar(select(func.count(found.column))) or 0
        if rows < 2 * k:
            raise QueryError(f"{search.name} has {rows} rows with a vector, too few to measure recall@{k}")
        sample = search.sample(rows, queries, seed)
        truth = []
        for done, query in enumerate(sample, 1):
            truth.append(search.exact(query))
            if progress is not None:
                progress(done, len(sample))
        fitted = _Fitting(search, sample, truth)
        efforts = {level: fitted.least(level) for level in sorted({*LEVELS, target})}
        for effort in also:
            fitted.measure(effort)
    return Fit(
        search.name,
        search.index,
        search.setting,
        k,
        target,
        rows,
        len(sample),
        efforts,
        fitted.measured,
        fitted.milliseconds,
    )


def keep(connection: Connection, fit: Fit) -> bool:
    """Let searches use it from now on: as the index's comment, and in the catalog where the embedding is registered.

    Needs the index's owner; in the caller's transaction. Returns whether the catalog knows the embedding.
    """
    if connection.scalar(text("SELECT to_regclass('embeddb.recall')")) is not None:
        return bool(connection.scalar(_KEEP, {name: getattr(fit, name) for name in _KEPT}))
    comment = text("SELECT format('COMMENT ON INDEX %s IS %L', CAST(:index AS regclass), CAST(:comment AS text))")
    values = {"index": fit.index, "comment": fit.comment}
    connection.exec_driver_sql(str(connection.scalar(comment, values)), execution_options={"no_parameters": True})
    return False


def unmeasured(connection: Connection) -> list[str]:
    """Names of the registered embeddings with an index whose recall is unknown, or known of half the rows or fewer.

    Raises CatalogError where the database has no catalog.
    """
    if connection.scalar(text("SELECT to_regclass('embeddb.coverage')")) is None:
        raise CatalogError(
            "this database has no catalog, which would know what to measure: name it, as package.module:Model.attribute"
        )
    names = connection.scalars(
        text(
            "SELECT embedding FROM embeddb.coverage"
            " WHERE index_valid IS NOT NULL AND (recall IS NULL OR recall_stale) ORDER BY embedding"
        )
    )
    return list(names)


_KEPT: Final = ("index", "column", "comment", "setting", "k", "target", "effort", "recall", "queries", "rows")
_KEEP: Final = text(
    "SELECT embeddb.keep_recall(CAST(:index AS regclass), :column, :comment, :setting, :k, :target, :effort, :recall, "
    ":queries, :rows)"
)


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    transaction = connection.begin()
    try:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield
    finally:
        transaction.rollback()


class _Search:
    """The statements that are measured, of one embedding."""

    def __init__(self, connection: Connection, found: Embedding, k: int) -> None:
        table, settings = found.table, found.settings
        index = index_of(found.column, settings)
        self.name = str(found.column)
        if not isinstance(table, Table) or settings.index is None or index is None:
            raise QueryError(f"{self.name} has no declared index: every search of it is exact")
        if connection.scalar(text("SELECT to_regclass(:index)"), {"index": index}) is None:
            raise QueryError(f"{self.name} has no index {index} in this database: create it, or name it as declared")
        connection.rollback()
        self.connection = connection
        self.index = index
        self.k = k
        self.method = settings.index
        self.setting = "candidates" if reranks(settings) else _SETTING[settings.index.method]
        self.found = found
        query = query_expression(bindparam("query"), settings, exact=True)
        plain: Any = found.distance(bindparam("query"), exact=True)
        full = BinaryExpression(found.column, query, plain.operator) if settings.storage == "vector" else plain
        rows = select(type_coerce(full, Float).label("distance")).where(found.column.is_not(None))
        self.in_full = rows.order_by(in_full(plain)).limit(k)
        self.neighbours = select(found.column).where(found.column.is_not(None)).order_by(plain).limit(NEIGHBOURS)
        if reranks(settings):
            operator = custom_op("<~>") if settings.index.cast == "binary" else plain.operator
            held: Any = indexed(found.column, settings)
            near: BinaryExpression[Any] = BinaryExpression(held, indexed(query, settings), operator)
            proposed = rows.order_by(near).limit(bindparam("effort", type_=Integer)).subquery()
            self.through_index = select(proposed).order_by(in_full(proposed.c.distance)).limit(k)
        else:
            self.through_index = rows.order_by(plain).limit(k)

    def sample(self, rows: int, queries: int, seed: int) -> list[Vector]:
        """Vectors to search for: as rows that are not there, but lie among those that are.

        A row itself is found too easily, for the graph has links to it. So of each row drawn, a, and two of its
        neighbours, b and c, it is (2 a + 2 b - c) / 3: of points of a normal distribution this is another of the same
        mean and variance, for the weights sum to 1, and so do their squares. Bits are rounded to.
        """
        source: Any = self.found.table
        if rows > FEW:
            source = source.tablesample(func.system(min(100, 2000 * queries / rows)), seed=literal(seed))
        self.connection.execute(select(func.setseed(literal(seed % 1000 / 1000))))
        vector = source.c[self.found.column.key]
        drawn = select(vector).where(vector.is_not(None)).order_by(func.random()).limit(queries)
        random = np.random.default_rng(seed)
        sample = []
        with self.settings(NEIGHBOURS * 2):
            for first in self.connection.scalars(drawn).all():
                near = self.connection.scalars(self.neighbours, {"query": first}).all()
                second, third = (near[place] for place in random.integers(len(near), size=2))
                between: Any = (2 * first + 2 * second - third) / 3
                between = between > 0.5 if first.dtype == bool else between.astype(np.float32)
                sample.append(between if between.any() else first)
        return sample

    def exact(self, query: Vector) -> float:
        """The distance of the ``k``-th nearest row: what is as near is as good, as where rows are equal."""
        return float(self.connection.scalars(self.in_full, {"query": query}).all()[-1])

    @contextmanager
    def settings(self, effort: int) -> Iterator[None]:
        """Scan with that effort, through the index."""
        name, asked = "hnsw.ef_search", effort
        if isinstance(self.method, IVFFlat):
            name, asked = "ivfflat.probes", probes(self.method) if self.setting == "candidates" else effort
        for setting, value in (("enable_seqscan", "off"), (name, str(asked))):
            self.connection.execute(select(func.set_config(setting, value, true())))
        yield
        self.connection.execute(select(func.set_config("enable_seqscan", "on", true())))

    def found_within(self, query: Vector, effort: int, limit: float) -> int:
        """How many of the rows that the index finds are no farther than ``limit``."""
        found = self.connection.scalars(self.through_index, {"query": query, "effort": effort})
        return sum(distance <= limit + 1e-6 * abs(limit) + 1e-9 for distance in found)


_SETTING: Final = {"hnsw": "ef_search", "ivfflat": "probes"}


class _Fitting:
    """Recall by effort, measured where bisection asks for it."""

    def __init__(self, search: _Search, sample: Sequence[Vector], truth: Sequence[float]) -> None:
        self.search = search
        self.sample = sample
        self.truth = truth
        self.measured: dict[int, float] = {}
        self.surely: dict[int, float] = {}
        self.milliseconds: dict[int, float] = {}
        lists = search.method.lists if isinstance(search.method, IVFFlat) and search.setting == "probes" else None
        # At a small ef_search a walk through the graph ends in the first hollow that it comes by. Rows made of rows, as
        # the sample is, are found all the same, and others are not. So no less than pgvector's own default is fitted.
        low, high = (max(2 * search.k, _DEFAULT), MAX_EF_SEARCH) if lists is None else (1, lists)
        steps = max(1, math.ceil(math.log(high / low) / math.log(STEP)))
        self.efforts = sorted({min(high, round(low * STEP**step)) for step in range(steps + 1)})

    def least(self, level: float) -> int:
        """The least effort whose recall is ``level``, or as good as the most effort gives.

        A sample's recall is off by its standard error: with that taken off it must still be ``level`` less 0.01. And as
        a query that fails, fails as a whole, the sample counts one more of them than it has: its rarest kind.
        """
        self.measure(self.efforts[-1])
        mean, surely = (min(level, self.measured[self.efforts[-1]]), min(level - 0.01, self.surely[self.efforts[-1]]))
        low, high = 0, len(self.efforts) - 1
        while low < high:
            middle = (low + high) // 2
            effort = self.efforts[middle]
            self.measure(effort)
            if self.measured[effort] >= mean and self.surely[effort] >= surely:
                high = middle
            else:
                low = middle + 1
        return self.efforts[low]

    def measure(self, effort: int) -> None:
        """Recall@k and its lower bound at that effort, once."""
        if effort in self.measured:
            return
        hits, times = [], []
        with self.search.settings(effort):
            for query, limit in zip(self.sample, self.truth, strict=True):
                begin = time.perf_counter()
                hits.append(self.search.found_within(query, effort, limit) / self.search.k)
                times.append(time.perf_counter() - begin)
        self.measured[effort] = float(np.mean(hits))
        hits.append(0.0)
        self.surely[effort] = float(np.mean(hits)) - float(np.std(hits)) / math.sqrt(len(hits))
        self.milliseconds[effort] = 1000 * float(np.median(times))
