"""A declaration: what is embedded where, from which columns, and whether that can work."""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Enum, LargeBinary, MetaData, String, Table, or_
from sqlalchemy.orm import ColumnProperty, Mapper, configure_mappers
from sqlalchemy.types import TypeDecorator, TypeEngine

from embeddb.encoders import Encoder
from embeddb.errors import DeclarationError, EncoderError
from embeddb.naming import embedding_name
from embeddb.orm.settings import Settings
from embeddb.sources.inputs import Inputs
from embeddb.spec import (
    EmbeddingSpec,
    rename_fields,
)

INFO_KEY: Final = "embeddb"


class Declaration:
    """One embedding of one table: its columns, its encoder and its spec."""

    def __init__(self, settings: Settings, column: Column[Any], source_names: tuple[str, ...] | None = None) -> None:
        self.settings = settings
        self.column = column
        self.mapper: Mapper[Any] | None = None
        #: Column names of the sources; attribute names until the mapper is configured.
        self.source_names = source_names or settings.sources

    def __repr__(self) -> str:
        return f"<Declaration {self.name}>"

    @property
    def table(self) -> Table:
        """The table that the embedding lives in."""
        table = self.column.table
        assert isinstance(table, Table)
        return table

    @property
    def name(self) -> str:
        """``table.column`` or ``schema.table.column``."""
        return embedding_name(self.table.name, self.column.name, self.table.schema)

    @property
    def encoder(self) -> Encoder:
        """The encoder, not yet loaded."""
        return self.settings.encoder

    @property
    def sources(self) -> tuple[Column[Any], ...]:
        """The source columns, in the order in which they were declared."""
        columns = {column.name: column for column in self.table.columns}
        return tuple(columns[name] for name in self.source_names)

    @property
    def source_keys(self) -> tuple[str, ...]:
        """The attributes of the mapped class that hold the sources."""
        return self.settings.sources

    @property
    def key(self) -> str:
        """The attribute of the mapped class that holds the vector."""
        assert self.mapper is not None, f"{self.name} is not mapped"
        return self.mapper.get_property_by_column(self.column).key

    @cached_property
    def rows(self) -> list[ColumnElement[bool]]:
        """Conditions that leave the rows of the mapped class, joined to the table of their identity."""
        assert self.mapper is not None, f"{self.name} is not mapped"
        joins = (mapper.inherit_condition for mapper in self.mapper.iterate_to_root())
        conditions = [condition for condition in joins if condition is not None]
        if self.mapper.single and self.mapper.polymorphic_on is not None:
            kind = self.mapper.polymorphic_on
            conditions.append(or_(*(kind == m.polymorphic_identity for m in self.mapper.self_and_descendants)))
        return conditions

    @cached_property
    def spec(self) -> EmbeddingSpec:
        """The frozen value of this declaration. Reads the encoder's dimensions, never its weights."""
        said = self.settings
        return EmbeddingSpec(
            table=self.table.name,
            schema=self.table.schema,
            column=self.column.name,
            sources=self.source_names,
            template=rename_fields(said.template, said.sources, self.source_names),
            encoder=dict(said.encoder.config),
            dim=said.dim,
            metric=said.metric_name,
            storage=said.storage,
            index=said.index,
            mode=said.mode,
            on_error=said.on_error,
            on_update=said.on_update,
            files=None if said.files is None else said.files.to_dict(),
        )

    def require_dim(self) -> int:
        """The dimensions; EncoderError with the name and a remedy where nobody on this machine can tell them."""
        try:
            return self.settings.dim
        except EncoderError as error:
            said = str(error).rstrip(".")
            raise type(error)(
                f"{self.name}: how many dimensions its vectors have cannot be told here: {said}. Say dim=… in the "
                "declaration, and nobody needs to be asked"
            ) from error

    @cached_property
    def inputs(self) -> Inputs:
        """From the values of the sources to the encoder's input."""
        return Inputs.of(self.spec, self.encoder)

    def bind(self, mapper: Mapper[Any], key: str) -> None:
        """Resolve attributes to columns; refuse what cannot work. Called once, as the mapper is configured."""
        where = f"{mapper.class_.__name__}.{key}"
        columns = [_source_column(mapper, self.table, source, where) for source in self.settings.sources]
        if self.column in columns:
            raise DeclarationError(f"{where}: it cannot be its own source; name the columns that it embeds")
        _check_target(self.column, where)
        _check_sources(columns, self.settings, where)
        self.mapper = mapper
        self.source_names = tuple(column.name for column in columns)
        try:
            dim = self.spec.dim
            encoder_dim = self.encoder.dim
        except DeclarationError as error:
            raise DeclarationError(f"{where}: {error}") from error
        except EncoderError:
            # The encoder's package or model is not on this machine (a web process that only queues). Whoever
            # needs the dimensions asks again, and gets the error then.
            return
        if dim != encoder_dim:
            raise DeclarationError(
                f"{where}: dim={dim}, but its encoder gives {encoder_dim} dimensions; drop dim, or set the encoder's"
            )


def _source_column(mapper: Mapper[Any], table: Table, source: str, where: str) -> Column[Any]:
    if source not in mapper.attrs:
        known = [prop.key for prop in mapper.column_attrs]
        near = difflib.get_close_matches(source, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the class has {', '.join(known)}"
        raise DeclarationError(f"{where}: there is no attribute {source!r} to embed; {hint}")
    prop = mapper.attrs[source]
    if not isinstance(prop, ColumnProperty) or not isinstance(prop.columns[0], Column):
        raise DeclarationError(f"{where}: {source!r} is not a column; name mapped columns, or a generated column")
    column = next((column for column in prop.columns if column.table is table), None)
    if not isinstance(column, Column):
        other = prop.columns[0].table
        raise DeclarationError(
            f"{where}: {source!r} lives in table {getattr(other, 'name', other)!r} and the vector in {table.name!r}; "
            f"declare the embedding on the class that owns {source!r}"
        )
    return column


def _check_target(column: Column[Any], where: str) -> None:
    if column.primary_key:
        raise DeclarationError(f"{where}: a vector cannot be a primary key; remove primary_key=True")
    if not column.nullable:
        raise DeclarationError(f"{where}: NULL says that a row waits to be embedded; remove nullable=False")


def _check_sources(columns: list[Column[Any]], settings: Settings, where: str) -> None:
    for column in columns:
        if settings.mode == "inline" and column.computed is not None:
            raise DeclarationError(
                f"{where}: only the database knows the generated column {column.name!r}; declare mode='queued'"
            )
        if settings.mode == "inline" and (column.onupdate is not None or column.server_onupdate is not None):
            raise DeclarationError(
                f"{where}: {column.name!r} changes by itself as a row is updated (onupdate); declare mode='queued'"
            )
        if settings.encoder.modality == "text" and not _is_text(column):
            raise DeclarationError(
                f"{where}: source {column.name!r} is {column.type!r}, and a text encoder takes text columns; "
                "embed a generated column of type Text instead: mapped_column(Text, Computed('...'))"
            )
    if settings.encoder.modality in ("image", "audio"):
        _check_file(columns, settings, where)
    elif settings.files is not None:
        raise DeclarationError(f"{where}: a {settings.encoder.modality} encoder reads no files; drop files=")


def _check_file(columns: list[Column[Any]], settings: Settings, where: str) -> None:
    """An image or a sound is one column: a file's name, or its bytes."""
    kind = settings.encoder.modality
    if len(columns) != 1 or settings.template is not None:
        raise DeclarationError(f"{where}: an encoder of {kind} takes one source column, without a template")
    [column] = columns
    if isinstance(column.type, LargeBinary):
        return
    if not _is_text(column):
        raise DeclarationError(
            f"{where}: source {column.name!r} is {column.type!r}, and an encoder of {kind} takes a path or URI (a text "
            "column) or a file's bytes (LargeBinary)"
        )
    if settings.files is None:
        raise DeclarationError(
            f"{where}: {column.name!r} names files: say which may be read, files=Files('/srv/photos', 'https://…')"
        )


def _is_text(column: Column[Any]) -> bool:
    """Whether Python and the database see the same text: a worker embeds what a flush would have embedded."""
    type_: TypeEngine[Any] = column.type
    if isinstance(type_, TypeDecorator):
        if type(type_).process_bind_param is not TypeDecorator.process_bind_param:
            return False
        type_ = type_.impl_instance
    return isinstance(type_, String) and not isinstance(type_, Enum)


def declaration_of(column: Any) -> Declaration | None:
    """The declaration of a column that ``embedding_column`` made, and that has joined a table."""
    return column.info.get(INFO_KEY) if isinstance(column, Column) else None


def declarations_of(mapper: Mapper[Any]) -> tuple[Declaration, ...]:
    """The declarations of a mapped class, inherited ones too."""
    known: tuple[Declaration, ...] | None = mapper.class_manager.info.get(INFO_KEY)
    if known is None:
        found = (declaration_of(prop.columns[0]) for prop in mapper.column_attrs)
        known = tuple(declaration for declaration in found if declaration is not None)
        mapper.class_manager.info[INFO_KEY] = known
    return known


def declared(target: Any) -> list[Declaration]:
    """Every declaration of a declarative base, a mapped class's metadata, a registry or a MetaData.

    They come by their tables' names, those of one table as they are declared there.
    """
    metadata = target if isinstance(target, MetaData) else getattr(target, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise DeclarationError(f"expected a declarative base, a registry or a MetaData, not {target!r}")
    configure_mappers()
    found = (declaration_of(column) for table in metadata.tables.values() for column in table.columns)
    declarations = [declaration for declaration in found if declaration is not None]
    return sorted(declarations, key=lambda declaration: (declaration.table.schema or "", declaration.table.name))
