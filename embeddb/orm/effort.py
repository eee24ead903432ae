"""How far a search looks: ef_search, probes or candidates, from LIMIT and from the recall that is asked for.

What was fitted to an embedding's own rows (``embeddb recall``) stands in the comment of its index, for there every
role that may read the table finds it, inside the statement, with no catalog and no round trip of its own; and it goes
where the index goes::

    embeddb recall@10: 0.9=14 0.95=22 0.98=40 0.99=71 0.999=310 default=22

Where nothing was fitted, the figures below hold, which are careful ones.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Final

from sqlalchemy import ColumnElement, Float, Integer, Text, cast, column, func, literal_column, select, table

from embeddb.errors import QueryError
from embeddb.orm.settings import Settings
from embeddb.spec import IVFFlat, VectorIndex

MAX_EF_SEARCH: Final = 1000  # pgvector's own

#: Levels of recall that are fitted, and what holds unfitted: ef_search at least, ef_search a row, times the square
#: root of the lists, candidates a row. None: nothing was asked.
UNFITTED: Final[dict[float | None, tuple[int, int, int, int]]] = {
    None: (64, 2, 3, 20),
    0.9: (40, 2, 2, 10),
    0.95: (64, 2, 3, 20),
    0.98: (100, 3, 4, 30),
    0.99: (200, 4, 6, 50),
    0.999: (400, 10, 12, 100),
}
LEVELS: Final = tuple(level for level in UNFITTED if level is not None)
#: What holds for None where rows are filtered: a filter's matches lie further apart than the rows, so more is missed.
UNDER_FILTERS: Final = 0.99

_DESCRIPTION: Final = table(
    "pg_description",
    column("objoid"),
    column("classoid"),
    column("objsubid"),
    column("description", Text),
    schema="pg_catalog",
)


def level_of(recall: float | None) -> float | None:
    """The lowest level that gives ``recall``; QueryError for what is no recall."""
    if recall is None:
        return None
    if not isinstance(recall, Real) or not 0 < recall <= LEVELS[-1]:
        raise QueryError(
            f"a recall is above 0 and at most {LEVELS[-1]}, not {recall!r}; for every row there is use exact=True"
        )
    return next(level for level in LEVELS if recall <= level)


def reranks(settings: Settings) -> bool:
    """Whether the index holds less than the vectors, so that it only proposes candidates."""
    index = settings.index
    return index is not None and (index.prefix is not None or index.cast == "binary")


def effort(
    settings: Settings,
    index: ColumnElement[str] | None,
    level: float | None,
    wanted: ColumnElement[int],
    *,
    filtered: bool = False,
) -> ColumnElement[int]:
    """What an index must be asked for to yield ``wanted`` rows: candidates, ef_search or probes, as SQL.

    ``index``: its name as a literal that ``to_regclass`` reads, or None where it is not known.
    """
    assert settings.index is not None
    usual = _unfitted(settings, settings.index, UNDER_FILTERS if level is None and filtered else level, wanted)
    if index is None:
        return usual
    said = _DESCRIPTION.c.description
    words = "default" if level is None else f"{level:g}"
    found = func.substring(said, literal_column(f"'^embeddb recall@.* {words}=([0-9]+)'"))
    rows = func.substring(said, literal_column("'^embeddb recall@([0-9]+)'"))
    # What was fitted for 10 rows is taken ten times for 100: more than is needed, as the curve flattens.
    times = func.greatest(literal_column("1"), wanted.op("/", precedence=8)(cast(rows, Float)))
    fitted = select(cast(func.ceil(cast(found, Float) * times), Integer)).where(
        _DESCRIPTION.c.objoid == func.to_regclass(index),
        _DESCRIPTION.c.classoid == literal_column("'pg_catalog.pg_class'::pg_catalog.regclass"),
        _DESCRIPTION.c.objsubid == literal_column("0"),
    )
    return func.coalesce(fitted.scalar_subquery(), usual)


def candidates(index: VectorIndex, dim: int, level: float | None) -> int:
    """How many rows an index that holds less proposes, unfitted, for each that is wanted.

    Signs of few dimensions tell little: 64 bits need five times the candidates for a recall that 256 bits have.
    """
    usual = UNFITTED[level][3]
    if index.cast != "binary":
        return usual
    bits = index.prefix or dim
    return usual * min(5, max(1, math.ceil(math.pow(256 / bits, 1.5))))


def _unfitted(
    settings: Settings, index: VectorIndex, level: float | None, wanted: ColumnElement[int]
) -> ColumnElement[int]:
    least, each, roots, _ = UNFITTED[level]
    if reranks(settings):
        proposed = candidates(index, settings.dim, level)
        return func.greatest(literal_column("100"), literal_column(str(proposed)) * wanted)
    if isinstance(index, IVFFlat):
        return literal_column(str(probes(index, roots)), Integer)
    return func.greatest(literal_column(str(least)), literal_column(str(each)) * wanted)


def probes(index: IVFFlat, roots: int = 3) -> int:
    """How many lists to search: by default enough for a recall near .98 where lists follow pgvector's advice."""
    return min(index.lists, math.ceil(roots * math.sqrt(index.lists)))
