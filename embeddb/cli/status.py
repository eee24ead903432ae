"""``embeddb status``: what is embedded, what waits, what failed, and who works on it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embeddb.cli.output import UrlOption, connected, out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from sqlalchemy import Connection, RowMapping


def command(
    url: UrlOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Show embeddb.coverage and embeddb.workers."""
    from embeddb.catalog.install import require

    with connected(url) as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        require(connection)
        if not watch:
            out.print(_look(connection))
            return
        from rich.live import Live

        with Live(_look(connection), console=out, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(every)
                    live.update(_look(connection), refresh=True)
            except KeyboardInterrupt:
                return


def _look(connection: Connection) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from sqlalchemy import text

    coverage = connection.execute(text("SELECT * FROM embeddb.coverage ORDER BY embedding")).mappings().all()
    workers = connection.execute(text("SELECT * FROM embeddb.workers ORDER BY id")).mappings().all()
    histories = connection.execute(text("SELECT * FROM embeddb.histories ORDER BY history")).mappings().all()
    away = connection.scalars(text("SELECT name FROM embeddb.dropped_index ORDER BY name")).all()
    notes: list[Any] = [
        f"{escape(name)} is dropped while rows are embedded: embeddb backfill --rebuild-index builds it."
        for name in away
    ]
    if histories:
        notes += ["", _histories(histories)]
    return Group(_coverage(coverage), *notes, "", _workers(workers) if workers else "No worker is running.")


def _coverage(rows: Sequence[RowMapping]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None)
    for name in ("embedding", "encoder", "state"):
        table.add_column(name)
    for name in ("rows", "embedded", "pending", "failed"):
        table.add_column(name, justify="right")
    table.add_column("oldest")
    table.add_column("index")
    for row in rows:
        about = "~" if row["estimated"] else ""
        encoder = f"{row['model'] or row['encoder']}, {row['dim']}"
        waits = f"waits: {row['wait_reason']}" if row["wait_until"] and _ahead(row["wait_until"]) else row["state"]
        counts = [f"{about}{row['rows']:,}", f"{about}{row['embedded']:,}", f"{row['pending']:,}", f"{row['failed']:,}"]
        index = {None: "none", True: "valid", False: "[red]invalid[/red]"}[row["index_valid"]]
        names = map(escape, (row["embedding"], encoder, waits))
        table.add_row(*names, *counts, _age(row["oldest_pending"]), index)
    return table


def _histories(rows: Sequence[RowMapping]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("history", "users", "with a vector", "triggers", box=None)
    for row in rows:
        about = "~" if row["estimated"] else ""
        kept_up = "on" if row["kept_up"] else "[red]off[/red]"
        table.add_row(escape(row["history"]), *(f"{about}{row[name]:,}" for name in ("rows", "embedded")), kept_up)
    return table


def _workers(rows: Sequence[RowMapping]) -> Any:
    from rich.table import Table

    table = Table("worker", "process", "alive", "since", "holding", "embedded", "failed", box=None)
    for row in rows:
        alive = f"[red]silent for {_age(row['silent'])}[/red]" if not row["alive"] else "yes"
        table.add_row(
            str(row["id"]),
            f"{row['host']}:{row['pid']}",
            "stopping" if row["stopping"] else alive,
            row["started_at"].strftime("%Y-%m-%d %H:%M:%S"),
            *(f"{row[name]:,}" for name in ("holding", "embedded", "failed")),
        )
    return table


def _ahead(moment: Any) -> bool:
    from datetime import UTC, datetime

    return bool(moment > datetime.now(UTC))


def _age(age: timedelta | None) -> str:
    return "" if age is None else str(timedelta(seconds=round(age.total_seconds())))
