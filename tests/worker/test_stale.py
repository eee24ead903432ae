"""Sources change at every step from claim to commit, a thousand times: never a stale vector with nothing pending."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from embeddb.encoders import Hashing
from embeddb.local import LocalPostgres
from embeddb.queue import batch, prepare, targets
from embeddb.queue.verify import verify
from embeddb.worker import Options, Worker, claiming, worker
from tests.catalog.application import Database, connect
from tests.worker.scripted import Scripted

CHANGES = 1000
ROWS = 6
#: Where a change may fall: the module, and the function before and after which it does.
STEPS: dict[str, tuple[Any, str]] = {
    "claim": (claiming, "claim"),
    "read": (claiming, "read"),
    "encode": (worker, "encode"),
    "settle": (worker, "settle_batch"),
    "write": (batch, "write"),
    "finish": (batch, "finish"),
}
POINTS = [f"{when} {step}" for step in STEPS for when in ("before", "after")]


@pytest.fixture(scope="session")
def server(server18: LocalPostgres) -> LocalPostgres:
    """One version is enough here."""
    return server18


class Saboteur:
    """Changes a row's sources at the point that is armed, from a session of its own."""

    def __init__(self, catalog: Engine) -> None:
        self.catalog = catalog
        self.armed: str | None = None
        self.changes: dict[str, int] = dict.fromkeys(POINTS, 0)
        self.threads: list[threading.Thread] = []

    def wrap(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.strike(f"before {step}")
            result = function(*args, **kwargs)
            self.strike(f"after {step}")
            return result

        return wrapped

    def strike(self, point: str) -> None:
        if self.armed != point:
            return
        self.armed = None
        self.changes[point] += 1
        thread = threading.Thread(target=self.change)
        thread.start()
        # Where the worker has locked the row the change waits for its commit, and the worker must not wait for it.
        thread.join(0.02)
        self.threads.append(thread)

    def change(self) -> None:
        row, number = random.randrange(ROWS), random.randrange(10**6)
        with connect(self.catalog) as db:
            match random.randrange(6):
                case 0:
                    db.execute("DELETE FROM articles WHERE id = %s", [row])
                case 1:
                    db.execute("UPDATE articles SET title = NULL, body = NULL WHERE id = %s", [row])
                case _:
                    # One row only: two writers of several would wait for each other crosswise.
                    db.execute("UPDATE articles SET title = %s WHERE id = %s", [f"changed {number}", row])


@pytest.mark.slow
def test_changes_at_every_step(catalog: Engine, articles: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    saboteur = Saboteur(catalog)
    for step, (module, name) in STEPS.items():
        monkeypatch.setattr(module, name, saboteur.wrap(step, getattr(module, name)))
    prepare(articles)
    [target] = targets(articles)
    encoder = Hashing(dim=3)
    labourer = Worker(catalog, encoders=[Scripted()], options=Options(poll=0.005, writers=1))
    thread = threading.Thread(target=labourer.run)
    thread.start()
    try:
        for number in range(CHANGES):
            saboteur.armed = POINTS[number % len(POINTS)]
            articles.execute(
                "INSERT INTO articles (id, title) SELECT i, 'row ' || %s FROM generate_series(0, %s) i"
                " ON CONFLICT (id) DO UPDATE SET title = excluded.title",
                [number, ROWS - 1],
            )
            while saboteur.armed is not None:
                threading.Event().wait(0.001)
            found = list(verify(articles, target, encoder))
            assert found == [], (number, found)
    finally:
        labourer.stop()
        thread.join(10)
    for waiting in saboteur.threads:
        waiting.join(10)
    Worker(catalog, encoders=[Scripted()]).run(once=True)
    assert list(verify(articles, target, encoder)) == []
    assert min(saboteur.changes.values()) >= CHANGES // len(POINTS)
