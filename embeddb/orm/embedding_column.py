"""``embedding_column``: the one place where a team says what is embedded, how, and how it is searched.

A declaration is known in three steps. ``embedding_column`` keeps what was said (``Settings``); when the column
joins its table there is a ``Declaration`` and the index; when the mapper is configured the sources are resolved
from attributes to columns, and whatever cannot work is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Column, Table, event
from sqlalchemy.orm import MappedColumn, Mapper, mapped_column

from embeddb.encoders import Encoder, resolve
from embeddb.errors import DeclarationError
from embeddb.metrics import MetricName, Storage
from embeddb.naming import index_name
from embeddb.orm.declaration import INFO_KEY, Declaration, declaration_of
from embeddb.orm.embedding_type import embedding_type
from embeddb.orm.extension import check_extension
from embeddb.orm.index_expression import declared_index
from embeddb.orm.settings import Settings
from embeddb.sources.files import Files
from embeddb.spec import HNSW, Mode, OnError, OnUpdate, VectorIndex, check_choices, check_template

_SETTINGS_KEY: Final = "embeddb_settings"


def embedding_column(
    *sources: str,
    encoder: Encoder | str | Mapping[str, Any],
    metric: MetricName = "cosine",
    storage: Storage = "vector",
    index: VectorIndex | None = HNSW(),  # noqa: B008 - frozen, so that one default serves all
    mode: Mode | None = None,
    template: str | None = None,
    on_error: OnError = "raise",
    on_update: OnUpdate = "keep",
    files: Files | None = None,
    dim: int | None = None,
    deferred: bool = True,
    **column: Any,
) -> MappedColumn[Any]:
    """A mapped column that holds the embedding of other columns of the same row.

    ``sources``: names of mapped attributes; their non-blank values are joined by a newline, or put in
    ``template``, such as ``"{title}: {body}"``; of images and sounds one, a path, a URI or a file's bytes.
    ``files``: which files may be read, ``Files("/srv/photos")``; a worker reads no others.
    ``encoder``: an encoder, or what ``resolve`` takes.
    ``metric``: cosine, l2 or inner_product; searches must use it. ``storage``: vector (float32) or halfvec.
    ``index``: HNSW(), IVFFlat() or None. ``mode``: inline (the flush embeds) or queued (a worker does); by
    default inline for text, queued for files. ``on_error``: what a failing encoder, or a file that cannot be read,
    does to an inline flush, raise or queue.
    ``on_update``: when sources change and a worker must embed anew, keep the old vector meanwhile or clear it.
    ``dim``: needed only where the encoder cannot tell without being loaded.
    Other arguments go to ``mapped_column``. The column is nullable, and deferred unless ``deferred=False``. A ``Table``
    and SQLModel's ``sa_column`` take its ``.column``.

    Raises DeclarationError here or when the mapper is configured, naming the class, column and remedy.
    """
    if not sources or not all(isinstance(source, str) for source in sources):
        raise DeclarationError("embedding_column: name at least one source attribute, each as a string")
    if len(set(sources)) != len(sources):
        raise DeclarationError(f"embedding_column: a source is named twice in {', '.join(sources)}")
    if template is not None:
        check_template(template, sources)
    check_choices(metric, storage, index, mode or "inline", on_error, on_update)
    resolved = resolve(encoder)
    settings = Settings(
        sources=sources,
        encoder=resolved,
        metric_name=metric,
        storage=storage,
        index=index,
        mode=mode or ("inline" if resolved.modality == "text" else "queued"),
        template=template,
        on_error=on_error,
        on_update=on_update,
        files=files,
        given_dim=dim,
        deferred=deferred,
    )
    column.setdefault("nullable", True)
    mapped = mapped_column(embedding_type(settings), deferred=deferred, **column)
    # Copies of the column (mixins, to_metadata) must join their tables in the same way: propagate.
    event.listen(mapped.column, "after_parent_attach", _join_table, propagate=True)
    for name, listener in (("before_mapper_configured", _defer), ("mapper_configured", _configure)):
        if not event.contains(Mapper, name, listener):
            event.listen(Mapper, name, listener)
    mapped.column.info[_SETTINGS_KEY] = settings
    return mapped


def _join_table(column: Column[Any], table: Table) -> None:
    settings: Settings = column.info[_SETTINGS_KEY]
    original = column.info.get(INFO_KEY)
    column.info[INFO_KEY] = Declaration(settings, column, original.source_names if original else None)
    for listener in (check_extension, _require_dimensions):
        if not event.contains(table, "before_create", listener):
            event.listen(table, "before_create", listener)
    if settings.index is not None:
        # _column_flag: like Column(index=True), a copy of the column brings the index along, so that
        # Table.to_metadata must not copy it a second time.
        declared_index(index_name(table.name, column.name, settings.index.method), column, settings, _column_flag=True)


def _require_dimensions(table: Table, connection: Any, **options: Any) -> None:
    for column in table.columns:
        declaration = declaration_of(column)
        if declaration is not None:
            declaration.require_dim()


def _defer(mapper: Mapper[Any], class_: type[Any]) -> None:
    # A plain Column (SQLModel's sa_column, a __table__) does not carry mapped_column's deferred=True.
    for prop in mapper.column_attrs:
        declaration = declaration_of(prop.columns[0])
        if declaration is not None and declaration.settings.deferred and not prop.deferred:
            prop.deferred = True
            prop.strategy_key = (("deferred", True), ("instrument", True))


def _configure(mapper: Mapper[Any], class_: type[Any]) -> None:
    for prop in mapper.column_attrs:
        declaration = declaration_of(prop.columns[0])
        if declaration is not None and declaration.mapper is None:
            declaration.bind(mapper, prop.key)
