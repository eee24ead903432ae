"""What an INSERT will write where the caller gave no value, as far as Python can know it."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal

from sqlalchemy import Column
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault


class _Unreadable(Enum):
    UNREADABLE = "only the database will know"


#: A source whose value only the database will know: an SQL expression, a server's default, a generated column.
UNREADABLE: Final = _Unreadable.UNREADABLE
Unreadable = Literal[_Unreadable.UNREADABLE]


def insert_default(column: Column[Any]) -> Any | Unreadable:
    """The value of the column's Python-side default, None without one, or UNREADABLE.

    A callable default is called: the caller must then write what it gave.
    """
    default = column.default
    if default is None:
        return None if column.server_default is None else UNREADABLE
    if isinstance(default, ScalarElementColumnDefault):
        return default.arg
    if not isinstance(default, CallableColumnDefault):
        return UNREADABLE
    try:
        return default.arg(None)  # type: ignore[arg-type]  # there is no statement yet
    except AttributeError:  # it looks into the statement's context, which does not exist yet
        return UNREADABLE
