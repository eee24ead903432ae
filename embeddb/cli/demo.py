"""``embeddb demo``: the main job, on a Postgres of its own."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.syntax import Syntax

from embeddb.cli.output import database_url, err, out, progress_bar

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

QUERIES = (
    ("planes that land on water", "cosine"),
    ("why dough gets bigger before it goes into the oven", "l2"),
    ("a wrong test result for a rare disease", "inner_product"),
)


def command(
    queries: Annotated[list[str] | None, typer.Argument(help="What to search for instead.", show_default=False)] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the server's data here; by default it is thrown away.", show_default=False)
    ] = None,
    postgres: Annotated[int | None, typer.Option(help="16 or 18.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option("--url", "-u", help="Another Postgres than an embedded one.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Neighbours to show.")] = 3,
    prompt: Annotated[bool, typer.Option(help="Ask for searches of your own at the end.")] = True,
) -> None:
    """Start a Postgres, embed a few hundred texts, and search them by meaning."""
    with _engine(folder, postgres, url) as engine:
        _load(engine)
        from sqlalchemy.orm import Session

        with Session(engine) as session:
            asked = [(query, metric) for query in queries for _, metric in QUERIES] if queries else QUERIES
            for query, metric in asked:
                _search(session, query, metric, limit)
            if prompt and sys.stdin.isatty():
                _converse(session, limit)


@contextmanager
def _engine(folder: Path | None, postgres: int | None, url: str | None) -> Iterator[Engine]:
    from sqlalchemy import create_engine

    from embeddb.local import LocalPostgres

    if url is not None:
        engine = create_engine(database_url(url))
        try:
            yield engine
        finally:
            engine.dispose()
        return
    with err.status("Starting Postgres …"):
        server = LocalPostgres(folder, version=postgres)
    with server:
        engine = create_engine(server.url)
        with engine.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
        out.print(f"Postgres {version}, pgvector, in {server.folder}")
        try:
            yield engine
        finally:
            engine.dispose()


def _load(engine: Engine) -> None:
    """Migrate the database and embed the texts, unless an earlier run has."""
    from sqlalchemy import func, select
    from sqlalchemy.orm import sessionmaker

    import embeddb
    from embeddb.demo.corpus import read_corpus
    from embeddb.demo.migrations import migrations
    from embeddb.demo.models import Passage
    from embeddb.migrate.environment import upgrade

    upgrade(engine, migrations())
    with progress_bar("Embedding") as progress:
        make_session = sessionmaker(engine)
        embeddb.install(make_session, progress=progress)
        with make_session() as session:
            there = set(session.scalars(select(Passage.title)))
            session.add_all(Passage(**text) for text in read_corpus() if text["title"] not in there)
            session.commit()
            count = session.scalar(select(func.count()).select_from(Passage).where(Passage.embedding.is_not(None)))
            session.connection().exec_driver_sql("ANALYZE passages")
            session.commit()
    out.print(f"{count} texts, each embedded in the transaction that inserted it\n")


def _search(session: Session, query: str, metric: str, limit: int) -> None:
    from embeddb.demo.models import Passage
    from embeddb.query.nearest import nearest
    from embeddb.query.plan import explain

    column: Any = {"cosine": Passage.embedding, "l2": Passage.embedding_l2, "inner_product": Passage.embedding_ip}
    statement = nearest(column[metric], query, score=True).limit(limit)
    # A few hundred rows are read faster without an index; show what happens once a table has grown.
    session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
    out.print(f"[bold]“{escape(query)}”[/] by {metric}")
    for row in session.execute(statement):
        body = textwrap.shorten(row.Passage.body, 90, placeholder=" …")
        out.print(f"  {row.score:6.3f}  [cyan]{escape(row.Passage.title)}[/]  {escape(body)}", soft_wrap=True)
    plan = explain(session, statement)
    out.print(Syntax(plan.sql, "postgresql", background_color="default", word_wrap=True))
    for line in plan.lines:
        style = "green" if "Index Scan" in line else "dim"
        out.print(f"  [{style}]{escape(line)}[/]", soft_wrap=True)
    out.print()
    session.rollback()


def _converse(session: Session, limit: int) -> None:
    """Ask for texts until there are no more."""
    from embeddb.errors import EmbeddbError

    out.print("Now yours; an empty line ends.")
    while True:
        try:
            query = out.input("search> ").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if not query:
            return
        try:
            _search(session, query, "cosine", limit)
        except EmbeddbError as error:
            err.print(f"[red]{escape(str(error))}[/]")
