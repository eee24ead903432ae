"""Why a plan searches an embedding as it does: from the statement, the plan's nodes and the table's indexes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.sql.visitors import iterate

from embeddb.catalog.blocks import blocks
from embeddb.metrics import METRICS
from embeddb.naming import embedding_name, quoted
from embeddb.orm.effort import reranks
from embeddb.orm.query_vector import SearchVector
from embeddb.orm.settings import settings_of

Node = Mapping[str, Any]

#: Below so many rows the planner is right to read them all; see docs/query-helpers.md.
FEW: Final = 15_000


@dataclass(frozen=True)
class Reason:
    """How one embedding is searched. ``index``: by which index, or None. ``why``: a sentence."""

    embedding: str
    index: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.embedding}: {self.why}"


@dataclass(frozen=True)
class VectorIndex:
    """An index of pgvector's on a table, as the database has it."""

    name: str
    table: str
    method: str
    opclass: str
    valid: bool
    rows: int
    scanned: bool


BLOCKS: Final = blocks("embeddb.query", "plan.sql")


@dataclass(frozen=True)
class VectorIndexes:
    """The indexes of the tables whose embeddings a statement names, and those that its plan scans."""

    all: tuple[VectorIndex, ...]

    @property
    def scanned(self) -> tuple[VectorIndex, ...]:
        """Those that the plan scans."""
        return tuple(index for index in self.all if index.scanned)

    @classmethod
    def read(cls, connection: Connection, statement: Any, scanned: Collection[tuple[Any, str]]) -> Self:
        """From the database. ``scanned``: schema and name of the indexes that a plan scans in an order."""
        tables = [column.table for column in embeddings_of(statement)]
        named = list(scanned)
        rows = connection.execute(
            text(BLOCKS["vector_indexes"]),
            {
                "tables": [quoted(str(table.name), connection.schema_for_object(table)) for table in tables],
                "schemas": [schema for schema, _ in named],
                "names": [name for _, name in named],
            },
        )
        return cls(
            tuple(
                VectorIndex(name, table, method, opclass, valid, count, (schema, name) in scanned)
                for schema, name, table, method, opclass, valid, count in rows
            )
        )


def embeddings_of(statement: Any) -> list[Column[Any]]:
    """The columns of embeddings that a statement names, in the order of their names."""
    found: dict[str, Column[Any]] = {}
    for part in iterate(statement) if hasattr(statement, "get_children") else ():
        for column in getattr(part, "base_columns", ()):
            if settings_of(column.type) is not None and isinstance(getattr(column, "table", None), Table):
                found[_name(column)] = column
    return [found[name] for name in sorted(found)]


def _name(column: Column[Any]) -> str:
    return embedding_name(column.table.name, column.name, column.table.schema)


def reasons(
    statement: Any, nodes: Collection[Node], indexes: VectorIndexes, settings: Mapping[str, str]
) -> Iterator[Reason]:
    """How each embedding of the statement is searched, and why so."""
    sorts = [key for node in nodes for key in node.get("Sort Key", ()) if _OPERATORS.search(key)]
    for column in embeddings_of(statement):
        ours = [index for index in indexes.all if index.table == column.table.name]
        used = [index for index in ours if index.scanned]
        if used:
            exact = " Rows are read and ordered exactly where it finds too few." if sorts else ""
            for index in used:
                how = f"the index {index.name} ({index.method}, {index.opclass}) serves it"
                yield Reason(_name(column), index.name, f"{how}{_shown(settings, index.method)}.{exact}")
        else:
            yield Reason(_name(column), None, _why_exact(column, statement, nodes, ours))


_OPERATORS: Final = re.compile("|".join(re.escape(metric.operator) for metric in METRICS.values()))


_UNLIMITED: Final = str(2**31 - 1)
#: What stands for a setting's value that depends on rows of the statement.
COMPUTED: Final = "computed"


def _shown(settings: Mapping[str, str], method: str) -> str:
    names = {
        "hnsw.ef_search": "ef_search",
        "ivfflat.probes": "probes",
        f"{method}.iterative_scan": "iterative scan",
        "hnsw.max_scan_tuples": "over rows up to",
    }
    shown = {words: settings[name] for name, words in names.items() if name in settings}
    return "".join(f", {words} {value}" for words, value in shown.items() if value not in (_UNLIMITED, COMPUTED))


def _read_by(node: Node, table: str) -> Iterator[str]:
    """The indexes by which a node reads a table: its own, or those below of which it has a bitmap."""
    if node.get("Relation Name") != table:
        return
    bitmaps = list(node.get("Plans", ())) if node["Node Type"] == "Bitmap Heap Scan" else []
    for bitmap in bitmaps:
        bitmaps += bitmap.get("Plans", ())
    yield from (each["Index Name"] for each in (node, *bitmaps) if "Index Name" in each)


def _is_scan(node: Node) -> bool:
    return node.get("Subplan Name") == "CTE embeddb_scan"


def _choosing(nodes: Collection[Node]) -> Collection[Node]:
    """The nodes that choose rows: with candidates not those that look them up afterwards."""
    scan = [node for node in nodes if _is_scan(node)]
    for node in scan:
        scan += node.get("Plans", ())
    return scan or nodes


def _why_exact(column: Column[Any], statement: Any, nodes: Collection[Node], indexes: Collection[VectorIndex]) -> str:
    settings = settings_of(column.type)
    assert settings is not None
    others = ", ".join(sorted({index for node in _choosing(nodes) for index in _read_by(node, column.table.name)}))
    rows = f"by the index {others}" if others else "all of them"
    exact = f"exact, its rows are read {rows}, and ordered by their distance"
    if reranks(settings) and any(map(_is_scan, nodes)):
        held = "bits" if settings.index is not None and settings.index.cast == "binary" else "first dimensions"
        exact = f"by no index, its rows are read {rows}, and the nearest by their {held} ordered by their distance"
    if settings.index is None:
        return f"{exact}: it is declared with index=None. Declare index=HNSW() and migrate, if the table is large."
    if not any(isinstance(part, SearchVector) for part in iterate(statement)):
        return f"{exact}: the statement asks for that, as exact=True and within do, or orders by no distance."
    if getattr(statement, "_limit_clause", None) is None and getattr(statement, "_fetch_clause", None) is None:
        return f"{exact}: without a LIMIT all rows are wanted. Add limit(…)."
    wanted = settings.metric.opclass
    if not indexes:
        return f"{exact}: the database has no vector index on {column.table}. Migrate, or create it."
    broken = [index.name for index in indexes if not index.valid]
    if broken:
        return f"{exact}: the index {broken[0]} is invalid, as a build that failed leaves it. REINDEX INDEX it."
    if not {index.opclass for index in indexes} & {*wanted.values(), "bit_hamming_ops"}:
        found = ", ".join(f"{index.name} ({index.opclass})" for index in indexes)
        return f"{exact}: the metric is {settings.metric_name}, and there is only {found}. Migrate."
    count = max(index.rows for index in indexes)
    if count < FEW:
        return f"{exact}: the table has about {count:,} rows, and reading so few takes no index."
    if len(getattr(statement, "_where_criteria", ())) == 1 and not getattr(statement, "_setup_joins", ()):
        return f"{exact}: of {count:,} rows the planner expects that so many are found faster by reading all."
    return (
        f"{exact}: the planner expects the filters to leave so few that this is faster. If they leave many, ANALYZE; "
        "if the statement orders by more than the distance, or by an expression of it, order by the distance alone."
    )


_OPSTRINGS: Final = frozenset(metric.operator for metric in METRICS.values())


def searches(statement: Any) -> bool:
    """Whether a statement compares an embedding with anything."""
    return any(
        isinstance(part, SearchVector) or getattr(getattr(part, "operator", None), "opstring", None) in _OPSTRINGS
        for part in iterate(statement)
    )
