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
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="The encoder's name, for a table that is not registered.", show_default=False),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only rows with COLUMN=VALUE; may be given again.", show_default=False),
]
ExactOption = Annotated[bool, typer.Option("--exact", help="Read every row instead of using the index.")]
RecallOption = Annotated[
    float | None,
    typer.Option("--recall", help="The share of the truly nearest rows to be found.", show_default=False),
]
PlanOption = Annotated[bool, typer.Option("--sql", help="Show the SQL and its plan as well.")]


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
    from embeddb.encoders import resolve
    from embeddb.errors import CatalogError
    from embeddb.orm.reflection import find_spec, reflect
    from embeddb.spec import EmbeddingSpec

    if ":" in target:
        return _column(import_path(target), target)
    *schema, table, column = ["", *target.split(".")]
    if not table or not column or len(schema) > 2:
        raise typer.BadParameter(f"{target!r} is neither table.column nor schema.table.column")
    if encoder is None:
        try:
            known = find_spec(connection, target)
        except CatalogError as error:
            raise CatalogError(f"{error}. Of others name package.module:Model.attribute, or an --encoder") from None
        return reflect(connection, known)
    made = resolve(encoder)
    spec = EmbeddingSpec(
        schema=schema[-1] or None,
        table=table,
        column=column,
        sources=(column,),  # unknown, and not needed for a search
        encoder=dict(made.config),
        dim=made.dim,
    )
    return reflect(connection, spec, made)


def _column(found: Any, target: str) -> Any:
    from embeddb.orm.settings import settings_of

    column = found.__clause_element__() if hasattr(found, "__clause_element__") else found
    if settings_of(getattr(column, "type", None)) is None:
        raise typer.BadParameter(f"{target} is no embedding: name its attribute, as package.module:Model.attribute")
    return column.table.c[column.name]


def where_equal(
    connection: Connection, statement: Select[Any], table: FromClause, conditions: list[str] | None
) -> Select[Any]:
    """The statement with ``--where COLUMN=VALUE`` for each of the conditions; a value is read as Postgres reads it."""
    from sqlalchemy import Enum, String, Text, cast, literal, select
    from sqlalchemy.exc import DBAPIError

    for condition in conditions or ():
        name, given, value = condition.partition("=")
        if not given:
            raise typer.BadParameter(f"{condition!r} is not COLUMN=VALUE", param_hint="--where")
        if name not in table.c:
            raise typer.BadParameter(f"{table} has no column {name!r}", param_hint="--where")
        column = table.c[name]
        words = isinstance(column.type, String) and not isinstance(column.type, Enum)
        # Not cast to VARCHAR(3), which would cut it short.
        read = literal(value, Text) if words else cast(literal(value, Text), column.type)
        try:
            connection.scalar(select(cast(read, Text)))
        except DBAPIError as error:
            said = str(error.orig).splitlines()[0]
            raise typer.BadParameter(f"{condition!r}: {said}", param_hint="--where") from None
        statement = statement.where(column == read)
    return statement
