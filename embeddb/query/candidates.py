"""Two steps in one statement: an index proposes candidates under its own filters, exact distances order them.

``nearest`` puts a condition into its Select that compiles, when the whole statement is known, to::

    id = ANY (ARRAY(
           WITH embeddb_scan AS MATERIALIZED (SELECT id FROM … WHERE … ORDER BY <what the index holds> LIMIT n × 24),
                embeddb_found AS MATERIALIZED (SELECT * FROM embeddb_scan LIMIT n)
           SELECT * FROM embeddb_found
           UNION ALL
           SELECT id FROM … WHERE … AND <the scan went too far, or found too little> ORDER BY <exact distance> LIMIT k))

with the FROM and WHERE of the statement around it, so that filters, joins, LIMIT and OFFSET that are added later count.

- The planner chooses between the index and reading the filter's matches, by its own estimate of how many there are. It
  takes a row that an index scan must pass over for far cheaper than it is. So it is told of 24 times the rows; a CTE is
  read only as far as it is asked, so no more than n are ever fetched. This puts the choice where the times cross, at
  about sqrt(20 · rows · n) matches.
- An estimate may be wrong, as of a filter that goes against the vectors, and graph search grows worse the further it
  goes on. The index's own counter tells how many rows were passed over; above 1.4 times what such a crossing allows, or
  where fewer than n rows came, the exact branch runs. Otherwise it costs nothing.
- A generic plan knows no filter's value. A subquery that costs the planner much, and nothing where parameters are
  known, makes Postgres keep to plans with values; with plan_cache_mode = force_generic_plan answers stay right, by the
  exact branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Select,
    Table,
    Text,
    cast,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BinaryExpression, Grouping, Label, Over, _label_reference
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.visitors import InternalTraversal, iterate

from embeddb.orm.effort import MAX_EF_SEARCH, reranks
from embeddb.orm.index_expression import indexed
from embeddb.orm.query_vector import Narrowing, SearchVector, name_literal, narrowed, scan_settings, wanted
from embeddb.orm.settings import Settings, settings_of
from embeddb.query.embedding import in_full
from embeddb.spec import HNSW

#: How much dearer a row of an index scan is than the planner thinks; fitted at 100,000 rows of 384 dimensions.
DEARER: Final = 24
#: Candidates of a row, at most.
MOST: Final = 100
#: A scan that gave more rows than sqrt(FAR · rows · n) is not believed: 1.4 times what it gives where the times cross.
FAR: Final = 0.1
#: Rows that a scan visits for each that it may give.
VISITS: Final = 5


class Measured(ColumnElement[float]):
    """The distance by which ``nearest`` orders.

    ``+ 0`` keeps an index from serving it where candidates are chosen already, and where all rows matter: a graph
    never gives all.
    """

    __visit_name__ = "measured"
    _traverse_internals = [("distance", InternalTraversal.dp_clauseelement)]

    def __init__(self, distance: ColumnElement[float]) -> None:
        self.distance = distance
        self.type = distance.type

    def self_group(self, against: Any = None) -> Any:
        """In parentheses where the distance would be."""
        return self if self.distance.self_group(against) is self.distance else Grouping(self)


@compiles(Measured)
def _compile_measured(element: Measured, compiler: SQLCompiler, **options: Any) -> str:
    text = compiler.process(element.distance, **options)
    statement = compiler.stack[-1].get("selectable") if compiler.stack else None
    by_index = isinstance(statement, Select) and _takes_first(statement) and not narrowed(statement, compiler)
    return text if by_index else f"({text}) + 0"


class Candidates(Narrowing):
    """``embedding IS NOT NULL``, and, where that pays, membership in the index's candidates.

    ``measured``: the distance that orders the statement. ``identity``: the primary key's columns. ``filtered``: whether
    rows are filtered; None where the statement shows it. ``instead``: the order in which rows are taken where the
    query, a subquery, finds no vector; None where there always is one.
    """

    __visit_name__ = "candidates"
    type = Boolean()
    _traverse_internals = [
        ("measured", InternalTraversal.dp_clauseelement),
        ("column", InternalTraversal.dp_clauseelement),
        ("identity", InternalTraversal.dp_clauseelement_tuple),
        ("said", InternalTraversal.dp_string),
        ("instead", InternalTraversal.dp_clauseelement),
    ]

    def __init__(
        self,
        measured: Measured,
        column: ColumnElement[Any],
        identity: tuple[ColumnElement[Any], ...],
        filtered: bool | None = None,
        instead: ColumnElement[Any] | None = None,
    ) -> None:
        self.measured = measured
        self.column = column
        self.identity = identity
        self.filtered = filtered
        #: The same for the cache key, which would leave False out like None.
        self.said = None if filtered is None else str(filtered)
        self.instead = instead

    def self_group(self, against: Any = None) -> Candidates:
        """Itself: as a condition it needs no ``IS true``, and no parentheses."""
        return self

    @property
    def search(self) -> SearchVector | None:
        """The query's vector with its settings, or None where the query is an expression of other rows."""
        distance = self.measured.distance
        right = distance.right if isinstance(distance, BinaryExpression) else None
        return right if isinstance(right, SearchVector) else None

    def narrows(self, statement: Select[Any], compiler: SQLCompiler) -> bool:
        """Where first rows are taken by this distance, of filtered ones or by an index that cannot order them."""
        search = self.search
        settings = settings_of(search.type) if search is not None else None
        if settings is None or not self.identity or not _takes_first(statement) or not _is(statement, self.measured):
            return False
        # IVFFlat goes on in relaxed order only, so that rows of later lists come too late.
        in_order = not reranks(settings) and isinstance(settings.index, HNSW)
        return not in_order or self.has_filters(statement, compiler)

    def has_filters(self, statement: Select[Any], compiler: SQLCompiler) -> bool:
        """Whether rows may be left out by a condition, by a join, or by a long scan's order, which drops late ones."""
        if self.filtered is not None:
            return self.filtered
        froms = froms_of(statement, compiler)
        alone = len(statement._where_criteria) == 1 and len(froms) == 1 and is_table(froms[0])
        return not alone or _is_long(statement)


def _is_long(statement: Select[Any]) -> bool:
    """Whether more rows are wanted than half of what ef_search can hold. Of a LIMIT in a parameter nothing is known."""
    limit: Any = statement._limit_clause
    return getattr(limit, "is_literal", False) and limit.name.isdigit() and int(limit.name) > MAX_EF_SEARCH // 2


def froms_of(statement: Select[Any], compiler: SQLCompiler) -> list[Any]:
    """What a statement that is being compiled selects from."""
    return statement._compile_state_factory(statement, compiler)._get_display_froms()


def _takes_first(statement: Select[Any]) -> bool:
    """Whether nothing but the first rows matters: they are neither grouped, nor counted, nor seen by a window."""
    if statement._limit_clause is None and (
        statement._fetch_clause is None or any((statement._fetch_clause_options or {}).values())
    ):
        return False
    if statement._distinct or statement._group_by_clauses or statement._having_criteria:
        return False
    windows = (part for column in statement._raw_columns for part in iterate(column) if isinstance(part, Over))
    return all(_ranks(window) for window in windows)


def _ranks(window: Over[Any]) -> bool:
    """Whether it numbers rows in the order of a distance, which rows that come later do not change."""
    if getattr(window.element, "name", None) not in ("row_number", "rank", "dense_rank") or window.order_by is None:
        return False
    return any(isinstance(part, SearchVector) for part in iterate(window.order_by))


def _is(statement: Select[Any], measured: Measured) -> bool:
    """Whether the statement is ordered by that distance before all."""
    if not statement._order_by_clauses:
        return False
    first: Any = statement._order_by_clauses[0]
    if isinstance(first, _label_reference):
        first = first.element
    if isinstance(first, Label):
        first = first.element
    return isinstance(first, Measured) and first.compare(measured)


def is_table(source: Any) -> bool:
    """Whether a FROM is a table or an alias of one, so all its rows."""
    while hasattr(source, "element"):
        source = source.element
    return isinstance(source, Table)


@compiles(Candidates)
def _compile(element: Candidates, compiler: SQLCompiler, **options: Any) -> str:
    present = compiler.process(element.column.is_not(None), **options)
    statement = compiler.stack[-1].get("selectable") if compiler.stack else None
    if not isinstance(statement, Select) or not element.narrows(statement, compiler):
        return present
    search = element.search
    settings = settings_of(search.type) if search is not None else None
    assert search is not None
    assert settings is not None
    return _Pieces(element, search, settings, statement, compiler).sql()


_ALL: Final[ColumnElement[Any]] = literal_column("*")
_HAMMING: Final[custom_op[Any]] = custom_op("<~>")
_SCAN, _FOUND = table("embeddb_scan"), table("embeddb_found")
_BEFORE = table("embeddb_before", column("passed", BigInteger), column("far", Float))
_MANY = func.generate_series(literal_column("1"), literal_column("2147483647")).alias("embeddb_never")
_MANY_ROWS: Final[ColumnElement[int]] = literal_column("1000000")
_CLASS = table("pg_class", column("oid"), column("reltuples", Float), schema="pg_catalog")


class _Pieces:
    """The parts of the subquery, each compiled where it stands."""

    def __init__(
        self,
        element: Candidates,
        search: SearchVector,
        settings: Settings,
        statement: Select[Any],
        compiler: SQLCompiler,
    ) -> None:
        self.element = element
        self.search = search
        self.settings = settings
        self.statement = statement
        self.compiler = compiler
        self.distance: Any = element.measured.distance
        self.reranks = reranks(settings)
        self.filtered = element.has_filters(statement, compiler)
        self.index = name_literal(search.index, compiler) if search.index is not None else None
        self.wanted = wanted(statement)
        self.asked = search.effort(settings, self.wanted, compiler, filtered=self.filtered)
        #: Candidates: of an index that holds less than the vectors, or of a long scan, more than are wanted.
        more = self.wanted * literal_column("5") // literal_column("4") if _is_long(statement) else self.wanted
        self.count = self.asked if self.reranks else more

    def sql(self) -> str:
        """The condition."""
        found = select(_ALL).select_from(_SCAN).limit(self.count)
        ctes = [(_SCAN, self.scan()), (_FOUND, found)]
        branches = [select(_ALL).select_from(_FOUND)]
        if self.filtered:
            branches.append(select(_ALL).select_from(self.in_full().subquery("embeddb_exact")))
            if self.index is not None:
                ctes.insert(0, (_BEFORE, select(self.passed().label("passed"), self.far().label("far"))))
        if self.element.instead is not None:
            rows = self.piece(self.search.vector.is_(None)).order_by(self.element.instead, *self.element.identity)
            rows = rows.limit(self.wanted)
            branches.append(select(_ALL).select_from(rows.subquery("embeddb_instead")))
        with_ = ", ".join(f"{table.name} AS MATERIALIZED ({self.process(part)})" for table, part in ctes)
        union = " UNION ALL ".join(self.process(part) for part in branches)
        first, *others = self.element.identity
        if others or isinstance(first.type, ARRAY):  # an array of arrays has other elements
            return f"{self.process(tuple_(first, *others))} IN (WITH {with_} {union})"
        # An array needs no join, so less planning.
        return f"{self.process(first)} = ANY (ARRAY(WITH {with_} {union}))"

    def process(self, part: Any) -> str:
        """Compile a part: a select as in FROM, where nothing correlates to the statement around it."""
        return self.compiler.process(part, **({"asfrom": True} if isinstance(part, Select) else {}))

    def piece(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        """The keys of the rows that the statement leaves."""
        criteria = [part for part in self.statement._where_criteria if not isinstance(part, Candidates)]
        piece = self.statement._generate()
        piece._from_obj = tuple(froms_of(self.statement, self.compiler))
        piece._raw_columns = [column.label(f"key{n}") for n, column in enumerate(self.element.identity)]
        piece._where_criteria = (self.element.column.is_not(None), *criteria, *conditions)
        piece._order_by_clauses = ()
        piece._limit_clause = piece._offset_clause = piece._fetch_clause = None
        piece._for_update_arg = None
        return piece

    def scan(self) -> Select[Any]:
        """Through the index, or by reading the filter's matches: the planner's choice."""
        settings, left, right = self.settings, self.distance.left, self.search.vector
        operator = self.distance.operator
        most: ColumnElement[int] = literal_column(str(DEARER)) * self.wanted
        if self.reranks:
            left, right = indexed(self.element.column, settings), indexed(right, settings)
            operator = _HAMMING if settings.index and settings.index.cast == "binary" else operator
            each = 10 * DEARER if self.filtered else MOST
            most = func.greatest(literal_column("1000"), literal_column(str(each)) * self.wanted)
        query = select(right).where(*self.scan_settings()).scalar_subquery()
        return self.piece(*self.found()).order_by(BinaryExpression(left, query, operator)).limit(most)

    def scan_settings(self) -> Iterator[ColumnElement[bool]]:
        """What is set before the scan begins; and the counter is read."""
        most: ColumnElement[Any] | None = None
        if self.filtered:
            if self.index is not None:
                most = select(cast(cast(_BEFORE.c.far * literal_column(str(VISITS)), Integer), Text)).scalar_subquery()
            known = BindParameter("embeddb_known", 0, type_=Integer(), unique=True)
            never = select(func.count()).select_from(_MANY).where(known < literal_column("0"))
            yield never.scalar_subquery() == literal_column("0")
        yield from scan_settings(self.settings, self.asked, order="relaxed_order", most=most)

    def passed(self) -> ColumnElement[int]:
        """How many rows this transaction's scans of the index have given so far."""
        return func.coalesce(func.pg_stat_get_xact_tuples_returned(func.to_regclass(self.index)), literal_column("0"))

    def far(self) -> ColumnElement[float]:
        """How many rows a scan may give until it is too far from the query."""
        rows = select(_CLASS.c.reltuples).where(_CLASS.c.oid == func.to_regclass(self.index)).scalar_subquery()
        # Of the index of a partitioned table, and of one that was never analyzed, nothing is known.
        known = func.coalesce(func.nullif(func.greatest(rows, literal_column("0")), literal_column("0")), _MANY_ROWS)
        crossed = func.sqrt(literal_column(str(FAR)) * self.count * known)
        return cast(func.greatest(crossed, literal_column("2") * self.count), Float)

    def in_full(self) -> Select[Any]:
        """Every row that the filters leave, where the index did not do."""
        failed: ColumnElement[bool] = func.count() < self.count
        if self.index is not None:
            passed = self.passed() - select(_BEFORE.c.passed).scalar_subquery()
            failed = or_(failed, passed > select(_BEFORE.c.far).scalar_subquery())
        condition = select(failed).select_from(_FOUND).scalar_subquery()
        distance = BinaryExpression(self.distance.left, self.search.vector, self.distance.operator, type_=Float())
        return self.piece(condition, *self.found()).order_by(in_full(distance)).limit(self.wanted)

    def found(self) -> tuple[ColumnElement[bool], ...]:
        """That there is a vector to search for, where that is not certain."""
        return () if self.element.instead is None else (self.search.vector.is_not(None),)
