"""The promise under fire: writers, workers and the server itself are killed, and no row may be lost or wrong.

    python -m benchmarks.chaos [--operations 50000] [--kills 100] [--crashes 5]

Writers (processes) insert, update, delete, upsert, roll back and change keys through the ORM, Core and raw SQL. Workers
(processes) encode with an encoder that fails, stalls and hits rate limits at random, and refuses some texts for ever.
A random worker is killed (SIGKILL) every second, and now and then the postmaster, which is then started again. At the
end the queue is drained: verify over all rows must find nothing, and every row must be embedded, blank, or recorded as
failed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from sqlalchemy import Engine, create_engine, delete, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from benchmarks.harness import machine
from embeddb import Vector, embedding_column, install, register
from embeddb.encoders import Hashing, Vectors
from embeddb.errors import EmbeddbError, RateLimited, TransientEncoderError
from embeddb.local import LocalPostgres
from embeddb.queue import prepare, targets
from embeddb.queue.verify import Violation, verify
from embeddb.worker import Options, Worker

KEYS = 3000
DIM = 16
POISON = "poison"


@dataclass(frozen=True)
class Unreliable:
    """Hashing, by a service that fails, stalls, limits its rate, and refuses whatever holds the word "poison"."""

    trouble: float = field(default=0.0, compare=False)
    dim: int = DIM
    modality: Literal["text"] = "text"
    fingerprint: str = "unreliable"

    @property
    def config(self) -> dict[str, Any]:
        return {"type": "unreliable"}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        chance = random.random() / self.trouble if self.trouble else 1.0
        if chance < 0.3:
            raise TransientEncoderError("the service is away")
        if chance < 0.5:
            raise RateLimited("slow down", retry_after=random.uniform(0.05, 0.3))
        if chance < 0.6:
            time.sleep(random.uniform(0.5, 3))
        if chance < 0.7:
            raise RuntimeError("something else")
        if any(POISON in value for value in inputs):
            raise ValueError("this text cannot be embedded")
        return Hashing(dim=self.dim).encode_documents(inputs)

    encode_queries = encode_documents


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    body: Mapped[str | None]
    year: Mapped[int | None]
    embedding: Mapped[Vector | None] = embedding_column(
        "title", "body", encoder=Unreliable(), mode="queued", on_update="clear"
    )


class Note(Base):
    __tablename__ = "notes"
    tenant: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    embedding: Mapped[Vector | None] = embedding_column(
        "body", encoder=Unreliable(trouble=0.2), mode="inline", on_error="queue", index=None
    )


def words() -> str | None:
    """Something to embed; now and then nothing, and now and then what cannot be embedded."""
    chance = random.random()
    if chance < 0.05:
        return random.choice([None, "", "  "])
    if chance < 0.07:
        return f"{POISON} {random.random()}"
    return f"{random.choice(['flying', 'landing', 'sinking'])} boat {random.randrange(10**6)}"


class Writer:
    """One process of writers. Each operation is a transaction; what it did is counted when it has committed."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, pool_pre_ping=True)
        self.sessions = sessionmaker(self.engine)
        install(self.sessions)

    def one(self) -> str:
        kind = random.choice(KINDS)
        getattr(self, kind)()
        return kind

    def key(self) -> int:
        return random.randrange(KEYS)

    def note(self) -> tuple[str, int]:
        return random.choice(["eu", "us"]), random.randrange(KEYS // 10)

    def orm_insert(self) -> None:
        with self.sessions.begin() as session:
            session.add(Article(title=words(), body=words()))
            tenant, number = self.note()
            session.merge(Note(tenant=tenant, number=number, body=words()))

    def orm_update(self) -> None:
        with self.sessions.begin() as session:
            article = session.get(Article, self.key())
            if article is not None:
                article.title = words()
            note = session.get(Note, self.note())
            if note is not None:
                note.body = words()

    def orm_delete(self) -> None:
        with self.sessions.begin() as session:
            for found in (session.get(Article, self.key()), session.get(Note, self.note())):
                if found is not None:
                    session.delete(found)

    def orm_statement(self) -> None:
        with self.sessions.begin() as session:
            session.execute(update(Article).where(Article.id == self.key()).values(body=words(), year=1))

    def core_upsert(self) -> None:
        with self.engine.begin() as connection:
            rows = [{"id": key, "title": words()} for key in {self.key() for _ in range(random.randrange(1, 9))}]
            statement = insert(Article.__table__).values(rows)  # type: ignore[arg-type]
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"title": statement.excluded.title})
            )

    def core_delete(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(delete(Article.__table__).where(Article.id == self.key()))  # type: ignore[arg-type]

    def raw_bulk(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text("INSERT INTO articles (title, body) SELECT :title, 'bulk ' || i FROM generate_series(1, :n) i"),
                {"title": words(), "n": random.randrange(1, 100)},
            )
            connection.execute(text("DELETE FROM articles WHERE id > :keys AND random() < 0.02"), {"keys": KEYS})

    def raw_other(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE articles SET year = 2000 WHERE id = :id"), {"id": self.key()})

    def raw_key(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE notes SET number = :new, body = coalesce(:body, body)"
                    " WHERE tenant = :tenant AND number = :old"
                    " AND NOT EXISTS (SELECT FROM notes WHERE tenant = :tenant AND number = :new)"
                ),
                {"new": self.note()[1], "old": self.note()[1], "tenant": self.note()[0], "body": words()},
            )

    def raw_rollback(self) -> None:
        with Session(self.engine) as session:
            session.execute(text("UPDATE articles SET title = :t WHERE id % 100 = :k"), {"t": words(), "k": self.key()})
            session.execute(text("DELETE FROM notes WHERE number = :n"), {"n": self.note()[1]})
            session.rollback()


KINDS = [name for name in vars(Writer) if name.partition("_")[0] in ("orm", "core", "raw")]


def write(url: str, stop: Any, counts: Any, seed: int) -> None:
    """A writer's process. Errors of a server that is away, and of rows that others changed, are expected."""
    logging.disable(logging.WARNING)  # of rows left to the queue
    random.seed(seed)
    writer = Writer(url)
    done: Counter[str] = Counter()
    while not stop.is_set():
        try:
            done[writer.one()] += 1
        except (DBAPIError, EmbeddbError, InvalidRequestError, PendingRollbackError, StaleDataError):
            time.sleep(0.01)
        if sum(done.values()) % 50 == 0:
            counts.put(done)
            done = Counter()
    counts.put(done)


def labour(url: str, seed: int) -> None:
    """A worker's process, to be killed."""
    logging.disable(logging.WARNING)
    random.seed(seed)
    while True:
        with suppress(psycopg.OperationalError):
            Worker(
                url,
                encoders=[Unreliable(trouble=0.2)],
                options=Options(rows=64, lease=3.0, retry=0.1, max_retry=2.0, max_attempts=12),
            ).run()
        time.sleep(0.2)


@dataclass
class Report:
    """What happened, and what was found."""

    operations: Counter[str]
    worker_kills: int
    server_crashes: int
    queued: int = 0
    rows: int = 0
    embedded: int = 0
    failed: int = 0
    lost: int = 0
    violations: list[Violation] = field(default_factory=list)


class Chaos:
    """The server, its writers and its workers."""

    def __init__(self, server: LocalPostgres, writers: int, workers: int) -> None:
        self.server = server
        self.context = multiprocessing.get_context("spawn")
        self.stop_writers = self.context.Event()
        self.counts = self.context.Queue()
        self.operations: Counter[str] = Counter()
        self.writers = [
            self.context.Process(target=write, args=(server.url, self.stop_writers, self.counts, seed), daemon=True)
            for seed in range(writers)
        ]
        self.seed = 0
        self.workers = [self.worker() for _ in range(workers)]

    def worker(self) -> Any:
        self.seed += 1
        process = self.context.Process(target=labour, args=(self.server.url, self.seed), daemon=True)
        process.start()
        return process

    def start(self) -> None:
        for process in self.writers:
            process.start()

    def kill_worker(self) -> None:
        place = random.randrange(len(self.workers))
        self.workers[place].kill()
        self.workers[place].join()
        self.workers[place] = self.worker()

    def crash_server(self) -> None:
        """SIGKILL the postmaster, and start the server again as it was started."""
        options = shlex.split((self.server.folder / "postmaster.opts").read_text())
        pid = int((self.server.folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        owner = self.server.folder.stat().st_uid
        # Its children leave when they notice; until then the new one does not start.
        for _ in range(100):
            with open(self.server.folder / "log", "ab") as log:
                process = subprocess.Popen(
                    options, stdout=log, stderr=log, start_new_session=True, user=owner if os.getuid() == 0 else None
                )
            for _ in range(100):
                time.sleep(0.1)
                if process.poll() is not None:
                    break
                with suppress(psycopg.OperationalError), psycopg.connect(self.server.dsn):
                    threading.Thread(target=process.wait, daemon=True).start()
                    return
        raise RuntimeError("the server did not start again")

    def collect(self) -> int:
        while not self.counts.empty():
            self.operations += self.counts.get()
        return sum(self.operations.values())

    def end(self) -> None:
        """Writers finish, workers are killed a last time."""
        self.stop_writers.set()
        end = time.monotonic() + 30
        while any(process.is_alive() for process in self.writers) and time.monotonic() < end:
            self.collect()  # a queue that no one reads keeps its writer alive
            time.sleep(0.1)
        self.collect()
        for process in [*self.writers, *self.workers]:
            process.kill()
            process.join()


def run(
    *,
    operations: int,
    kills: int,
    crashes: int,
    writers: int = 4,
    workers: int = 3,
    every: float = 1.0,
    version: int = 18,
) -> Report:
    """Go on until all three counts are reached, then drain and look."""
    with LocalPostgres(version=version) as server:
        engine = create_engine(server.url)
        Base.metadata.create_all(engine)
        register(engine, Base, install=True)
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO articles (id, title) SELECT i, 't ' || i FROM generate_series(1, 500) i")
            )
            connection.execute(text("SELECT setval('articles_id_seq', :keys)"), {"keys": KEYS})
        engine.dispose()
        chaos = Chaos(server, writers, workers)
        chaos.start()
        killed = crashed = 0
        try:
            while chaos.collect() < operations or killed < kills or crashed < crashes:
                time.sleep(every)
                chaos.kill_worker()
                killed += 1
                if crashed < crashes and killed >= (crashed + 1) * kills / (crashes + 1):
                    chaos.crash_server()
                    crashed += 1
        finally:
            chaos.end()
        return settle(server, engine, Report(chaos.operations, killed, crashed))


def settle(server: LocalPostgres, engine: Engine, report: Report) -> Report:
    """Drain with the encoder in good health, and look at every row."""
    with engine.connect() as connection:
        queued = "SELECT coalesce(sum((embeddb.count_pending(id)).pending), 0) FROM embeddb.embedding"
        report.queued = int(connection.scalar(text(queued)) or 0)
    options = Options(lease=5.0, retry=0.05, max_retry=0.5, max_attempts=12)
    Worker(engine, encoders=[Unreliable()], options=options).run(once=True)
    with psycopg.connect(server.dsn, autocommit=True) as db:
        prepare(db)
        for target in targets(db):
            report.violations += verify(db, target, Unreliable())
        for table, sources, key in (("articles", "title, body", "id"), ("notes", "body", "tenant, number")):
            shape = f"jsonb_build_array({key})" if "," in key else f"to_jsonb({key})"
            [(rows, embedded, lost)] = db.execute(
                f"SELECT count(*), count(embedding), count(*) FILTER (WHERE embedding IS NULL"
                f" AND concat({sources}) ~ '[^[:space:]]' AND NOT EXISTS (SELECT FROM embeddb.failure f"
                f" WHERE f.embedding = embeddb.find('{table}.embedding') AND f.key = {shape})) FROM {table}"
            )
            report.rows += rows
            report.embedded += embedded
            report.lost += lost
        [(report.failed, unexplained)] = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE error = '') FROM embeddb.failure"
        )
        report.lost += unexplained
    engine.dispose()
    return report


def main() -> None:
    """Run it in full, and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--crashes", type=int, default=5)
    parser.add_argument("--version", type=int, default=18)
    options = parser.parse_args()
    start = time.monotonic()
    report = run(operations=options.operations, kills=options.kills, crashes=options.crashes, version=options.version)
    print(machine())
    print(f"{sum(report.operations.values()):,} committed operations in {time.monotonic() - start:.0f} s:")
    for kind, count in sorted(report.operations.items()):
        print(f"  {kind:15} {count:,}")
    print(f"{report.worker_kills} workers killed, {report.server_crashes} crashes of the server")
    print(f"{report.rows:,} rows: {report.embedded:,} embedded, {report.failed:,} failed, {report.lost} lost")
    print(f"violations: {len(report.violations)}", *report.violations[:20], sep="\n  ")
    sys.exit(bool(report.violations or report.lost))


if __name__ == "__main__":
    main()
