"""The rows nearest to a vector of a row outside: what a LATERAL join repeats for each of those rows.

It is compiled to two steps and a way out, as ``nearest`` is under filters (see ``embeddb.query.candidates``)::

    WITH scan AS MATERIALIZED (SELECT id, … AS distance FROM … WHERE … ORDER BY distance LIMIT 32 * k),
         found AS MATERIALIZED (SELECT * FROM scan LIMIT k)
    SELECT * FROM found WHERE <they are k> UNION ALL SELECT <by reading all rows> WHERE <they are fewer>

A CTE is read only as far as it is asked for, so that no more than k rows are fetched; the larger LIMIT tells the
planner what a filtered index scan costs, and without filters it is k. The second branch runs where the index has too
few.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Integer, Select, bindparam, cast, func, literal_column, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.sql.selectable import LateralFromClause
from sqlalchemy.sql.visitors import InternalTraversal

from embeddb.orm.bit_types import BIT, QueryBits
from embeddb.orm.query_vector import parameter_type
from embeddb.orm.settings import Settings
from embeddb.orm.types import HALFVEC, VECTOR
from embeddb.query.candidates import DEARER
from embeddb.query.embedding import Embedding, in_full
from embeddb.query.given import whole
from embeddb.query.pool import Filters, around, is_whole
from embeddb.query.scan import holds_distances, relaxed


def nearest_to(
    embedding: Embedding, vector: KeyedColumnElement[Any], k: int, among: Select[Any] | None, exact: bool, *, what: str
) -> LateralFromClause:
    """The keys and the distance of the ``k`` rows nearest to a column of a row outside."""
    k = whole(k, f"{what}: k is the number of rows for each")
    settings, table = embedding.settings, vector.table
    # In a subquery, because the settings go around it in another, which must not read the column's table anew.
    outside = cast(select(vector).correlate(table).scalar_subquery(), sql_type(settings))
    query = embedding.as_query(outside)
    measured = embedding.distance(query, exact=True).label("distance")
    rows = embedding.rows(among, what).where(Filters(embedding.key))
    everything = rows.add_columns(measured).order_by(in_full(measured.element)).limit(k).correlate(table)
    if exact or not holds_distances(settings):
        return everything.lateral()
    wanted = bindparam("k", k, Integer, unique=True)
    near = relaxed(embedding, query, wanted).label("distance")
    most = _Most(wanted) if among is None else literal_column(str(DEARER)) * wanted
    scan = _materialized(rows.add_columns(near).order_by(near).limit(most).correlate(table))
    found = _materialized(select(scan).limit(k))
    enough = select(func.count()).select_from(found).scalar_subquery() >= wanted
    all_rows = everything.where(~enough).correlate(table, found).subquery()
    return union_all(select(found).where(enough), select(all_rows)).lateral()


class _Most(ColumnElement[int]):
    """What the planner is told of a scan's rows: as many as are wanted, or more where they are filtered."""

    __visit_name__ = "most"
    type = Integer()
    _traverse_internals = [("wanted", InternalTraversal.dp_clauseelement)]

    def __init__(self, wanted: ColumnElement[int]) -> None:
        self.wanted = wanted

    def self_group(self, against: Any = None) -> _Most:
        """Itself: it stands alone, after LIMIT."""
        return self


@compiles(_Most)
def _compile_most(element: _Most, compiler: SQLCompiler, **options: Any) -> str:
    criteria, froms = around(compiler)
    filtered = bool(criteria) or not is_whole(froms)
    most = literal_column(str(DEARER)) * element.wanted if filtered else element.wanted
    return compiler.process(most, **options)


def _materialized(rows: Select[Any]) -> CTE:
    return rows.cte(nesting=True).prefix_with("MATERIALIZED")


def sql_type(settings: Settings) -> VECTOR | HALFVEC | BIT:
    """What a value is cast to, to be compared with a column of these settings."""
    kind = parameter_type(settings)
    return BIT(kind.length) if isinstance(kind, QueryBits) else HALFVEC() if kind.storage == "halfvec" else VECTOR()
