"""Full text as a leg of a search: what is searched, and in which order its matches come.

A question in whole sentences matches no document by all of its words, so any word does, and rare ones count for more.
The score has the shape of BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"):
over the question's lexemes the sum of ``ln(1 + (N - n + .5) / (n + .5)) · tf / (1 - b + b · length / mean length)``.
For tf stands ts_rank of the one lexeme, which grows with its count to a bound, as BM25's does, and is fast; n and the
mean length are counted over what matches, N is the planner's estimate of the table's rows. Each lexeme is one scan,
by a GIN index where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Enum,
    Float,
    Select,
    String,
    Text,
    bindparam,
    cast,
    column,
    func,
    inspect,
    literal_column,
    select,
    table,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY, TSVECTOR
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.selectable import AliasedReturnsRows
from sqlalchemy.types import NullType

from embeddb.errors import QueryError
from embeddb.naming import quoted
from embeddb.query.pool import Filters, keys, keys_of

Match = Literal["any", "websearch"]

#: How much a text's length counts, from 0 to 1. On Cranfield .3 and .5 are alike, and both better than 0.
B: Final = 0.3

_CLASS = table("pg_class", column("oid"), column("reltuples", Float), schema="pg_catalog")


@dataclass(frozen=True, slots=True)
class FullText:
    """Columns that are searched by words. ``ready``: the one column is a tsvector already."""

    columns: tuple[QueryableAttribute[Any] | ColumnElement[Any], ...]
    config: str
    ready: bool = False

    @property
    def entity(self) -> Any:
        """What the columns belong to: a mapped class, an alias of one, or a table."""
        first: Any = self.columns[0]
        found = first.parent.entity if isinstance(first, QueryableAttribute) else getattr(first, "table", None)
        if found is None:
            raise QueryError(f"a text is a tsvector column or fulltext(…) of columns, not {first!r}")
        return found

    @property
    def regconfig(self) -> ColumnElement[Any]:
        """The configuration, in the SQL itself, so that an index on the expression can serve."""
        return cast(_inline(self.config), REGCONFIG)

    @property
    def vector(self) -> ColumnElement[Any]:
        """The tsvector: also what to index, ``Index("ix", fulltext(…).vector, postgresql_using="gin")``."""
        if self.ready:
            (ready,) = self.columns
            return ready.__clause_element__() if isinstance(ready, QueryableAttribute) else ready
        whole: Any = None
        for each in self.columns:
            words = isinstance(each.type, String) and not isinstance(each.type, Enum)
            present = func.coalesce(each if words else cast(each, Text), _inline(""))
            whole = present if whole is None else whole.op("||")(_inline(" ")).op("||")(present)
        return func.to_tsvector(self.regconfig, whole, type_=TSVECTOR)


def fulltext(*columns: QueryableAttribute[Any] | ColumnElement[Any], config: str = "english") -> FullText:
    """Text columns to be searched by words, where no tsvector column holds them. ``config``: Postgres's own."""
    if not columns:
        raise QueryError("fulltext takes the columns to search, like Article.title")
    return FullText(columns, config)


def as_text(text: Any, config: str) -> FullText:
    """What a text leg searches: as it is given, a tsvector column, or a column of text, read as one."""
    if isinstance(text, FullText):
        return text
    kind = getattr(text, "type", None)
    if not isinstance(kind, TSVECTOR | NullType | String):
        raise QueryError(f"a text is a tsvector column or fulltext(…) of columns, not {text!r}")
    return FullText((text,), config, ready=not isinstance(kind, String))


def matches(match: str) -> Match:
    """``match``, if there is such a one."""
    if match not in get_args(Match):
        raise QueryError(f"a text leg matches 'any' or 'websearch', not {match!r}")
    return match  # type: ignore[return-value]  # one of the literals, as checked


def _inline(value: str) -> ColumnElement[str]:
    """A string that stands in the SQL."""
    return bindparam("words", value, Text, unique=True, literal_execute=True)


def ranked_by_text(
    text: FullText, query: Any, match: Match, identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]
) -> Select[Any]:
    """Keys (``key0`` …) and ``place``, smaller is better, of the first ``limit`` rows that match."""
    words = cast(type_coerce(query, Text()) if isinstance(query, ColumnElement) else _given(query), Text)
    if match == "any":
        return _by_any_word(text, words, identity, limit)
    asked = select(func.websearch_to_tsquery(text.regconfig, words, type_=TSQUERY).label("query")).subquery()
    place = (-func.ts_rank_cd(text.vector, asked.c.query)).label("place")
    matching = text.vector.op("@@", is_comparison=True)(asked.c.query)
    statement = select(*keys(identity), place).join(asked, matching).where(Filters(identity))
    return statement.order_by(place, *identity).limit(limit)


def _given(query: Any) -> ColumnElement[str]:
    if not isinstance(query, str):
        raise QueryError(f"a text leg's query is a string, not {query!r}")
    return bindparam("words", query, Text, unique=True)


def _by_any_word(
    text: FullText, words: ColumnElement[str], identity: tuple[ColumnElement[Any], ...], limit: ColumnElement[int]
) -> Select[Any]:
    parsed = func.unnest(func.to_tsvector(text.regconfig, words, type_=TSVECTOR))
    lexemes = parsed.table_valued("lexeme", "positions", "weights").render_derived()
    lexeme: ColumnElement[Any] = lexemes.c.lexeme
    # As tsquery's syntax has it: quoted, quotes and backslashes doubled.
    for sign in ("\\", "'"):
        lexeme = func.replace(lexeme, _inline(sign), _inline(sign * 2))
    quoted = _inline("'").op("||")(lexeme).op("||")(_inline("'"))
    each = select(lexemes.c.lexeme, cast(quoted, TSQUERY).label("query")).subquery()
    matching = text.vector.op("@@", is_comparison=True)(each.c.query)
    length = func.length(text.vector, type_=Float())
    hits = (
        select(
            *keys(identity),
            func.ts_rank(text.vector, each.c.query, type_=Float()).label("frequency"),
            cast(func.count().over(partition_by=each.c.lexeme), Float).label("rows"),
            (length / func.avg(length).over()).label("length"),
        )
        .join(each, matching)
        .where(Filters(identity))
        .subquery()
    )
    found = literal_column(str(B), Float()) * hits.c.length + literal_column(str(1 - B), Float())
    half, none = literal_column("0.5", Float()), literal_column("0", Float())
    others = func.greatest(_rows(text) - hits.c.rows, none)
    rarity = func.ln(literal_column("1", Float()) + (others + half) / (hits.c.rows + half), type_=Float())
    near = keys_of(hits, identity)
    place = (-func.sum(rarity * hits.c.frequency / found)).label("place")
    return select(*near, place).group_by(*near).order_by(place, *near).limit(limit)


def _rows(text: FullText) -> ColumnElement[float]:
    """How many rows the table has, by the planner's estimate; 0 where it has none yet."""
    of: Any = inspect(text.entity)
    table: Any = of.mapper.local_table if hasattr(of, "mapper") else of
    while isinstance(table, AliasedReturnsRows):
        table = table.element
    name = quoted(getattr(table, "name", ""), getattr(table, "schema", None))
    rows = select(_CLASS.c.reltuples).where(_CLASS.c.oid == func.to_regclass(_inline(name)))
    return func.greatest(rows.scalar_subquery(), literal_column("0"))
