"""What a statement writes, by the attributes of the mapped class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column
from sqlalchemy.orm import Mapper

Row = dict[str, Any]


def by_attribute(mapper: Mapper[Any], row: Mapping[Any, Any]) -> Row:
    """``row`` with attribute names for keys, whether it came with names, columns or attributes."""
    return {_attribute(mapper, key): value for key, value in row.items()}


def _attribute(mapper: Mapper[Any], key: Any) -> str:
    if isinstance(key, str):
        if key in mapper.column_attrs:
            return key
        key = mapper.local_table.c[key]
    elif not isinstance(key, Column):
        key = key.__clause_element__()
        key = mapper.local_table.c.get(key.key, key)
    return mapper.get_property_by_column(key).key
