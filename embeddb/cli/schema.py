"""``embeddb schema``: the catalog in the database, its version, and who may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embeddb.cli.check import check
from embeddb.cli.output import UrlOption, connected, out

app = typer.Typer(
    help="Install, upgrade and describe the catalog: schema embeddb in your database.", no_args_is_help=True
)


app.command()(check)


@app.command()
def install(url: UrlOption = None) -> None:
    """Install the catalog, or bring it up to date."""
    from embeddb.catalog.install import install as install_catalog

    with connected(url) as connection, connection.begin():
        found = install_catalog(connection)
    out.print(f"The catalog is at version {found.installed}.")


@app.command()
def upgrade(url: UrlOption = None) -> None:
    """Bring the catalog up to date. There must be one already."""
    from embeddb.catalog.install import install as install_catalog
    from embeddb.catalog.install import status as status_of
    from embeddb.errors import CatalogMissing

    with connected(url) as connection, connection.begin():
        if status_of(connection).missing:
            raise CatalogMissing
        found = install_catalog(connection)
    out.print(f"The catalog is at version {found.installed}.")


@app.command()
def status(url: UrlOption = None) -> None:
    """Say which version is installed, and what is registered. Ends with 1 where something is to do."""
    from rich.table import Table
    from sqlalchemy import text

    from embeddb.catalog.install import status as status_of

    with connected(url) as connection:
        found = status_of(connection)
        if found.missing:
            out.print("There is no catalog. Run embeddb schema install.")
            raise typer.Exit(1)
        how = ", by CREATE EXTENSION" if found.extension else ""
        out.print(f"Version {found.installed} of {found.available}{how}; pgvector {found.pgvector}.")
        problems = connection.execute(
            text("SELECT e.name, p FROM embeddb.embeddings e, LATERAL embeddb.problems(e.id) AS p ORDER BY 1, 2")
        ).all()
        table = Table("embedding", "sources", "encoder", "mode", "state", box=None)
        for row in connection.execute(text("SELECT * FROM embeddb.embeddings ORDER BY name")).mappings():
            encoder = f"{row['encoder'].get('type')}, {row['dim']} dimensions"
            table.add_row(row["name"], ", ".join(row["sources"]), encoder, row["mode"], row["state"])
        if table.row_count:
            out.print(table)
    for name, problem in problems:
        out.print(f"{name}: {problem}", markup=False)
    if found.outdated:
        out.print("The catalog is older than this package. Run embeddb schema upgrade.")
    if found.outdated or problems:
        raise typer.Exit(1)


@app.command()
def sql(
    since: Annotated[int, typer.Option(min=0, help="The version that is installed already; 0 for none.")] = 0,
    vector_schema: Annotated[str, typer.Option(help="The schema that pgvector is in.")] = "public",
) -> None:
    """Print the script that installs or upgrades the catalog, for psql or for a colleague to review."""
    from embeddb.catalog.install import script

    typer.echo(script(since, vector_schema), nl=False)


@app.command()
def extension(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write the files to.", show_default=False)
    ] = None,
    postgres: Annotated[int, typer.Option(min=15, help="The major version of Postgres.")] = 18,
    vector_schema: Annotated[str, typer.Option(help="The schema that pgvector is in; for Postgres 15.")] = "public",
    into: Annotated[
        str | None,
        typer.Option("--install", metavar="PG_CONFIG", help="Write them into the server of this pg_config."),
    ] = None,
) -> None:
    """Write the files of the Postgres extension, for those who own the server: CREATE EXTENSION embeddb."""
    from embeddb.catalog.extension import build, find_server, write

    if (output is None) == (into is None):
        raise typer.BadParameter("say where: --output FOLDER, or --install PG_CONFIG")
    if into is not None:
        postgres, output = find_server(into)
    assert output is not None
    for path in write(output, build(postgres, vector_schema)):
        out.print(path.name if into is None else str(path), markup=False)


@app.command()
def uninstall(
    url: UrlOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the catalog, its triggers and its queue. Tables and the vectors in them stay."""
    from embeddb.catalog.install import uninstall as uninstall_catalog

    if not yes:
        typer.confirm("Remove the schema embeddb with its queue, failures and registrations?", abort=True)
    with connected(url) as connection, connection.begin():
        uninstall_catalog(connection)
    out.print("The catalog is gone.")


@app.command()
def grant(
    url: UrlOption = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="A role that runs workers; repeat it after a registration.")
    ] = None,
    reader: Annotated[list[str] | None, typer.Option(help="A role that looks at the views.")] = None,
) -> None:
    """Give roles the rights that they need, and no more."""
    from sqlalchemy import text

    if not worker and not reader:
        raise typer.BadParameter("name a role: --worker ROLE or --reader ROLE")
    with connected(url) as connection, connection.begin():
        for role in worker or ():
            connection.execute(text("SELECT embeddb.grant_worker(:role)"), {"role": role})
        for role in reader or ():
            connection.execute(text("SELECT embeddb.grant_reader(:role)"), {"role": role})
