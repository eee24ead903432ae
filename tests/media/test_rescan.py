"""A file that changes under its name is found, whatever its times say, and one that does not is not read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine, text
from typer.testing import CliRunner

from embeddb.cli.main import build
from embeddb.errors import QueryError
from embeddb.queue.rescan import PAGE, rescan
from embeddb.queue.verify import verify
from embeddb.sources.files import Files
from embeddb.worker import drain
from tests.media.library import COLOURS, png
from tests.media.senses import Colours
from tests.media.shop import Shop


@pytest.fixture
def shop(engine18: Engine, root: Path) -> Iterator[Shop]:
    shop = Shop(engine18, root)
    shop.add(**{f"_{n}": f"{colour}.png" for n, colour in enumerate(COLOURS, 1)}, _9=None)
    assert shop.drain() == (4, 0)
    yield shop
    shop.connection.close()


def test_a_changed_file_is_queued_and_embedded_anew(shop: Shop) -> None:
    assert shop.rescan() == {"1": "unchanged", "2": "unchanged", "3": "unchanged", "4": "unchanged", "9": "unchanged"}
    path = shop.root / "red.png"
    before = path.stat()
    path.write_bytes(png("white"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync and cp -p leave it
    assert shop.nearest("white") != 1
    assert shop.rescan()["1"] == "changed"
    assert shop.rescan()["1"] == "pending"
    assert shop.drain() == (1, 0)
    assert shop.nearest("white") == 1
    assert set(shop.rescan().values()) == {"unchanged"}


def test_only_what_may_have_changed_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    fetch = Files.fetch

    def watched(self: Files, name: Any) -> Any:
        read.append(str(name))
        return fetch(self, name)

    monkeypatch.setattr(Files, "fetch", watched)
    shop.rescan()
    assert read == []
    os.utime(shop.root / "blue.png", (1, 1))
    assert set(shop.rescan().values()) == {"unchanged"}
    assert read == ["blue.png"]
    shop.rescan()
    assert read == ["blue.png"]


def test_missing_files_are_reported_and_change_nothing(shop: Shop) -> None:
    (shop.root / "red.png").rename(shop.root / "away.png")
    [seen] = [seen for seen in rescan(shop.connection, shop.target) if seen.kind == "missing"]
    assert (seen.key, "red.png: it cannot be read" in seen.detail) == ("1", True)
    assert shop.drain() == (0, 0)
    assert shop.nearest("red") == 1
    (shop.root / "away.png").rename(shop.root / "red.png")
    assert set(shop.rescan().values()) == {"unchanged"}


def test_failures_get_another_chance_when_their_file_is_another_one(shop: Shop) -> None:
    shop.add(_10="new.png", _11="damaged.png")
    (shop.root / "damaged.png").write_bytes(b"no picture")
    assert shop.drain() == (0, 2)
    (shop.root / "new.png").write_bytes(png("white"))
    found = shop.rescan()
    assert (found["10"], found["11"]) == ("changed", "changed")  # nothing was recorded of what failed
    assert shop.drain() == (1, 1)
    assert shop.rescan()["11"] == "unchanged"  # tried once
    (shop.root / "damaged.png").write_bytes(png("black"))
    assert shop.rescan()["11"] == "changed"
    assert shop.drain() == (1, 0)


def test_another_name_is_another_file(shop: Shop) -> None:
    """A row that was given another file's name, with the same times and size, is not taken for the old one."""
    with shop.connection.transaction():
        shop.connection.execute("SET LOCAL session_replication_role = replica")
        shop.connection.execute("UPDATE photos SET path = 'lime.png' WHERE id = 1")
    assert shop.rescan()["1"] == "changed"
    shop.drain()
    assert shop.rescan()["1"] == "unchanged"
    shop.connection.execute("DELETE FROM photos WHERE id = 1")
    shop.rescan()
    assert shop.connection.execute("SELECT count(*) FROM embeddb.digest").fetchone() == (3,)


def test_a_scan_that_was_stopped_goes_on(shop: Shop) -> None:
    shop.add(**{f"_{n}": "red.png" for n in range(100, 100 + 2 * PAGE)})
    shop.drain()
    for colour in COLOURS:
        (shop.root / f"{colour}.png").write_bytes(png("white"))
    scan = rescan(shop.connection, shop.target)
    for seen in scan:
        if seen.key == "200":
            break
    scan.close()  # type: ignore[attr-defined]
    progress: list[int] = []
    rest = shop.rescan(after="200", progress=progress.append)
    assert list(rest)[:2] == ["201", "202"]
    assert progress[-1] == 2 * PAGE - 101
    assert shop.drain() == (2 * PAGE + 4, 0)


def test_the_command(shop: Shop) -> None:
    url = shop.engine.url.render_as_string(hide_password=False)
    (shop.root / "red.png").write_bytes(png("white"))
    result = CliRunner().invoke(build(), ["rescan", "photos.embedding", "-u", url], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    assert "1: changed: its content is another one" in result.output
    assert "1 changed and queued, 4 unchanged" in result.output
    (shop.root / "blue.png").unlink()
    result = CliRunner().invoke(build(), ["rescan", "photos.embedding", "-u", url], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "3: missing: blue.png: it cannot be read: No such file" in result.output
    with pytest.raises(QueryError, match=r"scans\.embedding: its sources name no files"):
        CliRunner().invoke(build(), ["rescan", "scans.embedding", "-u", url], catch_exceptions=False)


def test_unregistering_forgets_digests(shop: Shop) -> None:
    with shop.engine.begin() as connection:
        connection.execute(text("SELECT embeddb.unregister('photos.embedding')"))
        assert connection.scalar(text("SELECT count(*) FROM embeddb.digest")) == 0


def test_verify_reads_files_as_the_worker_does(shop: Shop) -> None:
    def found(encoder: Colours | None) -> list[tuple[str | None, str]]:
        return [(violation.key, violation.kind) for violation in verify(shop.connection, shop.target, encoder)]

    assert found(Colours()) == found(None) == []
    (shop.root / "red.png").write_bytes(png("white"))
    (shop.root / "blue.png").unlink()
    assert found(Colours()) == [("3", "unreadable"), ("1", "stale")]
    assert found(None) == []


@pytest.fixture
def worker_role(shop: Shop) -> Iterator[str]:
    shop.connection.execute("CREATE ROLE media_worker")
    yield "media_worker"
    shop.connection.execute("RESET ROLE")
    shop.connection.execute("DROP OWNED BY media_worker; DROP ROLE media_worker")


def test_a_worker_needs_no_more_than_its_role(shop: Shop, worker_role: str) -> None:
    shop.connection.execute("SELECT embeddb.grant_worker(%s)", [worker_role])
    shop.connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(worker_role)))
    (shop.root / "red.png").write_bytes(png("white"))
    assert shop.rescan()["1"] == "changed"
    engine = create_engine(shop.engine.url, connect_args={"options": f"-c role={worker_role}"})
    assert drain(engine, shop.models.base).embedded == 1
    engine.dispose()
    assert shop.rescan()["1"] == "unchanged"
