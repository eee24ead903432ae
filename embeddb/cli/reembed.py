"""``embeddb reembed``: another encoder for an embedding, while searches and writers go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embeddb.cli.index import build_bar
from embeddb.cli.output import UrlOption, database_url, err, out, progress_bar
from embeddb.cli.target import import_path

if TYPE_CHECKING:
    from embeddb.encoders import Encoder
    from embeddb.worker.reembed import Reembedding


def command(
    name: Annotated[str, typer.Argument(help="The embedding, as table.column.")],
    url: UrlOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="The new encoder: a model's name or folder, its configuration as JSON, or package.module:encoder.",
        ),
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Let workers leave the new column alone.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a change that was begun.")] = False,
    queue_only: Annotated[bool, typer.Option("--queue-only", help="Leave the work to running workers.")] = False,
    swap: Annotated[bool, typer.Option(help="Swap when the new column is filled; else stop before it.")] = True,
    roll_back: Annotated[bool, typer.Option("--rollback", help="Let the old column serve again.")] = False,
    contract: Annotated[
        bool, typer.Option("--contract", help="Drop the old column: there is no way back then.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Drop the new column, which has never served.")] = False,
    max_pending: Annotated[
        int, typer.Option(min=0, help="Swap while so many rows still wait; searches miss them meanwhile.")
    ] = 0,
) -> None:
    """Give an embedding another encoder: add a second column, fill it, build its index, and let it serve.

    Searches and writers go on throughout. Interrupt it when you like, and go on with --resume. Until --contract, the
    old column is kept up to date, and --rollback lets it serve again.
    """
    from sqlalchemy import create_engine

    from embeddb.worker.reembed import Reembedding

    steps = [to is not None, pause, resume, roll_back, contract, abandon]
    if sum(steps) > 1:
        raise typer.BadParameter("--to, --pause, --resume, --rollback, --contract, --abandon: one at a time")
    engine = create_engine(database_url(url))
    try:
        change = Reembedding(engine, name)
        if pause:
            change.pause()
        elif roll_back:
            out.print(f"{change.name} serves as before; the new column is {change.roll_back(max_pending=max_pending)}.")
        elif contract:
            change.contract()
            out.print("The old column is gone.")
        elif abandon:
            change.abandon()
            out.print("The new column is gone.")
        elif to is not None or resume:
            if to is not None:
                err.print(f"Filling {change.expand(_encoder(to))}.")
            else:
                change.pause(False)
            _go_on(change, queue_only, swap, max_pending)
        found = change.progress()
        about = {"none": "no change of encoder", "filling": "the new column is being filled", "swapped": "swapped"}
        out.print(
            f"{change.name}: {about[found.state]}"
            + ("" if found.state == "none" else f"; {found.shadow}: {found.pending} rows wait")
            + ("; paused" if found.paused else "")
            + "."
        )
    finally:
        engine.dispose()


def _go_on(change: Reembedding, queue_only: bool, swap: bool, max_pending: int) -> None:
    if not queue_only:
        total = change.progress().pending
        with progress_bar("embedding") as update:
            change.fill(observer=lambda done: update(done, max(done, total)))
    elif change.progress().pending > max_pending:
        err.print("Workers fill it. Go on with --resume when they are done.")
        return
    with build_bar() as observer:
        index = change.build_index(observer=observer)
    if index is not None:
        err.print(f"The index {index} is built.")
    if swap:
        out.print(f"{change.name} is of the new encoder; the old column is {change.swap(max_pending=max_pending)}.")


def _encoder(given: str) -> Encoder:
    import json

    from embeddb.encoders import resolve

    if given.startswith("{"):
        try:
            return resolve(json.loads(given))
        except json.JSONDecodeError as error:
            raise typer.BadParameter(f"{given} is no JSON: {error}", param_hint="--to") from None
    return resolve(import_path(given) if ":" in given else given)
