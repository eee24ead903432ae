"""What a command is pointed at: a model's attribute, or an embedding by its name."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause, Select


EmbeddingArgument = Annotated[
    str,
    typer.Argument(metavar="TABLE.COLUMN", help="The embedding, registered or not; or package.module:Model.attribute."),
]


def import_path(path: str) -> Any:
    """The object at ``package.module:Name.attribute``, with the present folder importable, as in a console."""
    module, _, names = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module)
        for name in filter(None, names.split(".")):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    return found


def named(target: str) -> Any:
    """What ``embeddb.insight`` takes: the attribute at ``package.module:Model.attribute``, or the name as it is."""
    return import_path(target) if ":" in target else target


def find_embedding(connection: Connection, target: str, encoder: str | None) -> Any:
    """The column meant by ``package.module:Model.attribute``, or by ``table.column`` with or without a schema.

    A name is looked up in the catalog; with ``encoder`` its table is reflected and its metric taken from its index.
    """
    if ":" in target:
        return import_path(target)
    from embeddb.encoders import resolve
    from embeddb.orm.reflection import find_spec, reflect
    from embeddb.spec import EmbeddingSpec

    if encoder is None:
        return reflect(connection, find_spec(connection, target))
    *schema, table, column = target.split(".")
    if not table or len(schema) > 1:
        raise typer.BadParameter(f"{target!r} is neither table.column nor schema.table.column")
    made = resolve(encoder)
    spec = EmbeddingSpec(
        schema=schema[0] if schema else None,
        table=table,
        column=column,
        sources=(column,),  # unknown, and not needed for a search
        encoder=dict(made.config),
        dim=made.dim,
    )
    return reflect(connection, spec, made)


def where_equal(statement: Select[Any], table: FromClause, conditions: list[str] | None) -> Select[Any]:
    """The statement with ``--where COLUMN=VALUE``, as text, for each of the conditions."""
    from sqlalchemy import Text, cast

    for condition in conditions or ():
        name, given, value = condition.partition("=")
        if not given:
            raise typer.BadParameter(f"{condition!r} is not COLUMN=VALUE", param_hint="--where")
        if name not in table.c:
            raise typer.BadParameter(f"{table} has no column {name!r}", param_hint="--where")
        statement = statement.where(cast(table.c[name], Text) == value)
    return statement
