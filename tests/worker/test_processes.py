"""Workers as processes that are stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

from benchmarks import chaos
from embeddb.encoders import Hashing
from embeddb.local import LocalPostgres
from embeddb.worker import Options, Worker
from tests.catalog.application import Database
from tests.worker.scripted import Scripted
from tests.worker.test_drain import broken, failures, insert, missing


@pytest.fixture(scope="session")
def server(server18: LocalPostgres) -> LocalPostgres:
    """One version is enough here."""
    return server18


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def process(catalog: Engine, *arguments: str, encoder: str = "scripted") -> Iterator[subprocess.Popen[str]]:
    """The command as a process, with an encoder that does what the texts say."""
    url = catalog.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "embeddb", "worker", "-u", url, "--import", f"tests.worker.processes:{encoder}"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, env=environment) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def holding(db: Database) -> int:
    [(count,)] = db.execute("SELECT count(*) FROM embeddb.job WHERE lease_until > now()").fetchall()
    return int(count)


def leased(db: Database) -> bool:
    return holding(db) > 0


def test_sigterm_finishes_the_batch_and_leaves_nothing_leased(catalog: Engine, articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'slow ' || i FROM generate_series(1, 2000) i")
    with process(catalog, "--rows", "64", "--log-format", "json", encoder="slow") as popen:
        wait_for(lambda: len(missing(articles)) < 2000)
        popen.terminate()
        _, log = popen.communicate(timeout=30)
    assert popen.returncode == 0, log
    assert '"embedded": 64' in log or '"embedded": 256' in log
    left = len(missing(articles))
    assert 0 < left < 2000
    assert holding(articles) == 0
    assert articles.execute("SELECT count(*) FROM embeddb.worker").fetchall() == [(0,)]
    assert articles.execute("SELECT DISTINCT attempts FROM embeddb.job").fetchall() == [(0,)]
    assert broken(articles, Hashing(dim=3)) == []


def test_a_second_signal_gives_back_what_hangs_in_the_encoder(catalog: Engine, articles: Database) -> None:
    insert(articles, "a", "b")
    with process(catalog, encoder="stuck") as popen:
        wait_for(lambda: leased(articles))
        popen.terminate()
        time.sleep(0.3)
        assert popen.poll() is None
        popen.send_signal(signal.SIGINT)
        popen.communicate(timeout=30)
    assert popen.returncode == 0
    assert (missing(articles), holding(articles)) == ([0, 1], 0)


def test_the_rows_of_a_killed_worker_are_taken_over(catalog: Engine, articles: Database) -> None:
    insert(articles, "a", "b")
    with process(catalog, "--lease", "1", encoder="stuck") as popen:
        wait_for(lambda: leased(articles))
        popen.kill()
        popen.wait()
    assert Worker(catalog, encoders=[Scripted()], options=Options(poll=0.05)).run(once=True).embedded == 2
    assert broken(articles, Hashing(dim=3)) == []


def test_a_row_that_kills_its_workers_comes_to_stand_alone(catalog: Engine, articles: Database) -> None:
    insert(articles, *("kill" if number == 7 else f"title {number}" for number in range(12)))
    deaths = 0
    for _ in range(12):
        with process(catalog, "--once", "--lease", "1", "--max-attempts", "5") as popen:
            popen.communicate(timeout=60)
        if popen.returncode == 0:
            break
        assert popen.returncode == 9
        deaths += 1
    assert deaths == 5
    assert missing(articles) == [7]
    [(key, step, attempts, error)] = failures(articles)
    assert (key, step, attempts) == (7, "encode", 6)
    assert "worker" in error


def test_an_idle_worker_wakes_up_and_stops_from_another_thread(catalog: Engine, articles: Database) -> None:
    worker = Worker(catalog, encoders=[Scripted()])
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_for(lambda: articles.execute("SELECT FROM embeddb.workers WHERE alive").fetchall())
        insert(articles, "hello")
        wait_for(lambda: missing(articles) == [])
    finally:
        worker.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_no_transaction_is_open_while_the_encoder_runs(catalog: Engine, articles: Database) -> None:
    insert(articles, "a")
    encoder = Scripted(hold=threading.Event())
    worker = Worker(catalog, encoders=[encoder])
    thread = threading.Thread(target=worker.run, kwargs={"once": True})
    thread.start()
    wait_for(lambda: encoder.calls)
    time.sleep(0.3)
    states = articles.execute(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    ).fetchall()
    assert states
    assert all(state == "idle" for (state,) in states)
    assert encoder.hold is not None
    encoder.hold.set()
    thread.join(10)
    assert missing(articles) == []


@pytest.mark.slow
def test_chaos() -> None:
    """Writers, killed workers and a killed server; benchmarks/chaos.py is the same at length."""
    report = chaos.run(operations=400, kills=6, crashes=1, writers=2, workers=2, every=0.7)
    assert report.violations == []
    assert report.lost == 0
    assert sum(report.operations.values()) >= 400
    assert set(report.operations) == set(chaos.KINDS)
    assert (report.worker_kills, report.server_crashes) >= (6, 1)
    assert report.failed > 0
    assert report.embedded > 400
