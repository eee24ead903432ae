"""``embeddb train item2vec``, ``als`` and ``gru4rec``: what users did, as vectors of items and of users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embeddb.cli.output import UrlOption, engine_of, err, out, progress_bar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy import float32
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from embeddb.encoders.history.base import HistoryEncoder
    from embeddb.encoders.history.events import History
    from embeddb.train.events import EventsTable

    Found = Mapping[Hashable, History]
    Update = Callable[[int, int], None]
    Train = Callable[[Found, Path, Update], HistoryEncoder]

Events = Annotated[str, typer.Argument(metavar="TABLE", help="A table with a row for each event.")]
User = Annotated[str, typer.Option(help="Its column that says who.")]
Item = Annotated[str, typer.Option(help="Its column that says what.")]
At = Annotated[
    str | None,
    typer.Option(help="Its column that says when; else events are in order of their key.", show_default=False),
]
Weight = Annotated[str | None, typer.Option(help="Its column that says how much an event counts.", show_default=False)]
Items = Annotated[
    str, typer.Option(metavar="TABLE.COLUMN", help="Where to store items' vectors, which users are compared with.")
]
Users = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE.COLUMN", help="Where to store the vectors of users as they are now.", show_default=False
    ),
]
Content = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Items' vectors of their content: items without events get the mean of their nearest neighbours'.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Option("--folder", "-o", help="Where to write the model.")]
Dim = Annotated[int, typer.Option(min=1, help="Dimensions of the vectors.")]
Epochs = Annotated[int, typer.Option(min=1, help="How often all events are read.")]
Least = Annotated[int, typer.Option(min=1, help="Events that an item needs to be known.")]
Threads = Annotated[int, typer.Option(min=1, help="More than one is faster and no longer reproducible.")]
Seed = Annotated[int, typer.Option(help="Another seed, another model.")]
Measure = Annotated[
    bool, typer.Option(help="First train without each user's last event, and say how often it is found.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the three commands share: whose events, and where their vectors go."""

    url: str | None
    table: str
    columns: tuple[str, str, str | None, str | None]
    folder: Path
    items: str
    dim: int
    pooled: str | None = None
    users: str | None = None
    content: str | None = None
    measure: bool = True

    def run(self, train: Train) -> None:
        """Read, train, measure, store, tell."""
        from embeddb.encoders.history import histories
        from embeddb.errors import SourceError
        from embeddb.train.events import EventsTable, content_of, vector_of
        from embeddb.train.rows import register_encoder

        with engine_of(self.url) as engine:
            with engine.connect() as connection, err.status("Reading …"):
                columns = {
                    name: vector_of(connection, name, self.dim)
                    for name in filter(None, (self.items, self.pooled, self.users))
                }
                if self.pooled is not None and self.pooled.rpartition(".")[0] != self.items.rpartition(".")[0]:
                    raise SourceError(f"{self.items} and {self.pooled} are columns of one table, that of the items")
                events = EventsTable.of(connection, self.table, *self.columns)
                events.key_of(columns[self.items], events.item)
                if self.users is not None:
                    events.key_of(columns[self.users], events.user)
                if self.content is not None:
                    content_of(columns[self.items], self.content)
                found = histories(events.rows(connection))
            # No transaction is open while the model is trained.
            if self.measure:
                self._measure(found, train)
            with progress_bar("Training") as progress:
                encoder = train(found, self.folder, progress)
            with engine.begin() as connection:
                registered = register_encoder(connection, encoder)
                self._store(connection, events, encoder, found)
        out.print(f"{len(encoder.items):,} items of {encoder.dim} dimensions in {encoder.model}")
        out.print(f"encoder: {encoder!r}" + (", registered in the catalog" if registered else ""), markup=False)

    def _measure(self, found: Found, train: Train) -> None:
        from shutil import rmtree

        from embeddb.train.leave_one_out import LeaveOneOut

        split = LeaveOneOut.of(found)
        if not split.kept:
            err.print("No user's last event is of an item that is new to them: nothing is measured.")
            return
        folder = self.folder / "leave-one-out"
        with progress_bar("Measuring") as progress:
            encoder = train(split.train, folder, progress)
        rates = split.hit_rates(encoder, targets=self._targets(encoder))
        rmtree(folder)
        better = f"; the model finds {rates.model / rates.popularity:.1f} times as many" if rates.popularity else ""
        out.print(f"HR@10 of {rates.users:,} users' last items: {rates.model:.3f}")
        out.print(f"by popularity alone: {rates.popularity:.3f}{better}")

    def _targets(self, encoder: HistoryEncoder) -> NDArray[float32]:
        """What is stored as items: without a column for what is pooled, it is that, in both places."""
        from embeddb.encoders.history import ItemVectors

        return encoder.pooled if isinstance(encoder, ItemVectors) and self.pooled is None else encoder.targets

    def _store(self, connection: Connection, events: EventsTable, encoder: HistoryEncoder, found: Found) -> None:
        from embeddb.encoders.history import ItemVectors
        from embeddb.train.events import content_of, store, vector_of

        items = vector_of(connection, self.items, encoder.dim)
        vectors = {items.name: self._targets(encoder)}
        if self.pooled is not None and isinstance(encoder, ItemVectors):
            pooled = vector_of(connection, self.pooled, encoder.dim)
            vectors[pooled.name] = encoder.pooled
        content = None if self.content is None else content_of(items, self.content)
        with err.status("Storing …"):
            rows, near = store(connection, events.key_of(items, events.item), encoder.items, vectors, content)
        out.print(
            f"{self.items}: {rows:,} rows have a vector"
            + (f", {near:,} of them by content" if content is not None else "")
        )
        if self.users is not None:
            users = vector_of(connection, self.users, encoder.dim)
            with err.status("Storing …"):
                of_users: NDArray[Any] = encoder.encode_documents(list(found.values()))
                rows, _ = store(connection, events.key_of(users, events.user), list(found), {users.name: of_users})
            out.print(f"{self.users}: {rows:,} rows have a vector")


def item2vec(
    events: Events,
    folder: Folder,
    items: Items,
    url: UrlOption = None,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = None,
    weight: Weight = None,
    pooled: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE.COLUMN",
            help="Items' column that histories pool, if it is not --items: the other side of skip-gram.",
            show_default=False,
        ),
    ] = None,
    content: Content = None,
    half_life: Annotated[
        float | None,
        typer.Option(min=0, help="After which an event counts half, when it is measured.", show_default=False),
    ] = None,
    unit: Annotated[Literal["days", "events"], typer.Option(help="Of the half-life.")] = "days",
    dim: Dim = 64,
    window: Annotated[int, typer.Option(min=1, help="Events to either side that count as context.")] = 30,
    epochs: Epochs = 30,
    least: Least = 1,
    threads: Threads = 1,
    measure: Measure = True,
    seed: Seed = 0,
) -> None:
    """Item2vec: items that the same people choose get like vectors; a history_column pools them to users."""
    from embeddb.encoders.history import ItemVectors
    from embeddb.train.item2vec import Item2VecRecipe, train_item2vec

    recipe = Item2VecRecipe(dim=dim, window=window, epochs=epochs, least=least, workers=threads, seed=seed)

    def train(found: Found, place: Path, progress: Update) -> ItemVectors:
        encoder = train_item2vec(found, place, recipe, progress=progress)
        if half_life is None:
            return encoder
        return ItemVectors(encoder.model, half_life * (86_400 if unit == "days" else 1), _UNITS[unit])

    columns = (user, item, at, weight)
    _Job(
        url=url,
        table=events,
        columns=columns,
        folder=folder,
        items=items,
        dim=dim,
        pooled=pooled,
        content=content,
        measure=measure,
    ).run(train)


_UNITS: dict[str, Literal["seconds", "events"]] = {"days": "seconds", "events": "events"}


def als(
    events: Events,
    folder: Folder,
    items: Items,
    url: UrlOption = None,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = None,
    weight: Weight = None,
    users: Users = None,
    content: Content = None,
    dim: Dim = 64,
    iterations: Annotated[int, typer.Option(min=1, help="How often users' and items' factors take turns.")] = 15,
    alpha: Annotated[float, typer.Option(min=0, help="The confidence of a weight of 1.")] = 10.0,
    least: Least = 1,
    threads: Threads = 1,
    measure: Measure = True,
    seed: Seed = 0,
) -> None:
    """ALS: factors of who chose what, weights being confidences. Compare by inner product."""
    from embeddb.encoders.history import ALS
    from embeddb.train.als import ALSRecipe, train_als

    recipe = ALSRecipe(dim=dim, iterations=iterations, alpha=alpha, least=least, threads=threads, seed=seed)

    def train(found: Found, place: Path, progress: Update) -> ALS:
        return train_als(found, place, recipe, progress=progress)

    columns = (user, item, at, weight)
    _Job(
        url=url,
        table=events,
        columns=columns,
        folder=folder,
        items=items,
        dim=dim,
        users=users,
        content=content,
        measure=measure,
    ).run(train)


def gru4rec(
    events: Events,
    folder: Folder,
    items: Items,
    url: UrlOption = None,
    user: User = "user_id",
    item: Item = "item_id",
    at: At = None,
    users: Users = None,
    content: Content = None,
    dim: Dim = 64,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the network's state.")] = 128,
    length: Annotated[int, typer.Option(min=1, help="The last events of a history that are read.")] = 50,
    epochs: Epochs = 20,
    least: Least = 1,
    measure: Measure = True,
    seed: Seed = 0,
) -> None:
    """GRU4Rec: a network that has read what a user did. Run again after an interruption, it goes on where it was."""
    from embeddb.encoders.history import GRU4Rec
    from embeddb.train.gru4rec import GRU4RecRecipe, train_gru4rec

    recipe = GRU4RecRecipe(dim=dim, hidden=hidden, length=length, epochs=epochs, least=least, seed=seed)

    def train(found: Found, place: Path, progress: Update) -> GRU4Rec:
        return train_gru4rec(found, place, recipe, report=lambda done, total, _loss: progress(done, total))

    columns = (user, item, at, None)
    _Job(
        url=url,
        table=events,
        columns=columns,
        folder=folder,
        items=items,
        dim=dim,
        users=users,
        content=content,
        measure=measure,
    ).run(train)
