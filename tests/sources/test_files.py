from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embeddb.errors import SourceError
from embeddb.sources.files import Files, digest, shorten
from embeddb.sources.http import is_public

pytest.importorskip("fsspec", reason="needs the extra embeddb[files]")
pytest.importorskip("aiohttp", reason="needs the extra embeddb[files]")


class _Server(ThreadingHTTPServer):
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        found = {"/photos/a.png": b"a", "/photos/large.png": b"x" * 5000, "/secret": b"secret"}.get(self.path)
        if self.path == "/photos/locked.png":
            self.send_response(403, "Not for you")
        else:
            self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def _serving() -> Iterator[tuple[str, list[str]]]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked
        server.shutdown()


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    with _serving() as site:
        yield site


def test_files_below_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "cats").mkdir(parents=True)
    other.mkdir()
    (root / "cats" / "1 é%.png").write_bytes(b"one")
    (other / "2.png").write_bytes(b"two")
    (root / "link.png").symlink_to(root / "cats" / "1 é%.png")
    (root / "other.png").symlink_to(other / "2.png")
    files = Files(root, other)
    path = root / "cats" / "1 é%.png"
    for name in ("cats/1 é%.png", str(path), path, path.as_uri(), "./cats/../cats/1 é%.png", "link.png"):
        assert files.read(name) == b"one"
    assert files.read(other / "2.png") == b"two"
    assert files.read("other.png") == b"two"  # a link from one root into another
    with pytest.raises(SourceError, match="lies outside"):
        Files(root).read("other.png")
    monkeypatch.chdir(tmp_path)
    assert Files("root").read("cats/1 é%.png") == b"one"
    with pytest.raises(SourceError, match="larger than 2 bytes"):
        Files(root, max_bytes=2).read(path)
    with pytest.raises(SourceError, match="name the roots"):
        Files()
    assert files == Files(root, other) != Files(root)
    assert digest(b"one") != digest(b"two")


def test_a_folder_that_becomes_a_link_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inner").mkdir(parents=True)
    outside.mkdir()
    (root / "inner" / "a.png").write_bytes(b"a")
    (outside / "a.png").write_bytes(b"secret")
    real = os.open
    calls: list[Any] = []

    def racing(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if not calls:  # the root is being opened: the name was checked, nothing of it is open yet
            (root / "inner").rename(root / "was")
            (root / "inner").symlink_to(outside)
        calls.append(path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", racing)
    with pytest.raises(SourceError, match="a link"):
        Files(root).read("inner/a.png")
    assert calls


def test_http_within_roots(site: tuple[str, list[str]]) -> None:
    address, asked = site
    files = Files(f"{address}/photos", private=True, max_bytes=4000)
    assert files.read(f"{address}/photos/a.png") == b"a"
    with pytest.raises(SourceError, match=r"large\.png: it is larger than 4,000 bytes"):
        files.read(f"{address}/photos/large.png")
    with pytest.raises(SourceError, match="the server answered 403 Not for you"):
        files.read(f"{address}/photos/locked.png")
    with pytest.raises(SourceError) as caught:
        files.read(f"{address}/photos/absent.png?token=secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match="absent"):
        files.read(f"{address}/photos/absent.png")
    before = list(asked)
    for name in ("/secret", "/photos/../secret", "/photos/%2e%2e/secret", "/photos-2/a.png", "/PHOTOS/a.png"):
        with pytest.raises(SourceError, match="below no root|is not read"):
            files.read(address + name)
    with pytest.raises(SourceError, match="no local root"):
        files.read("/etc/passwd")
    assert asked == before


def test_redirects_stay_within_the_roots(site: tuple[str, list[str]]) -> None:
    address, asked = site
    with _serving() as (elsewhere, asked_elsewhere):
        files = Files(f"{address}/to", f"{address}/photos", private=True)
        assert files.read(f"{address}/to//photos/a.png") == b"a"
        for target in (f"{elsewhere}/secret", f"{address}/secret", "/secret", "file:///etc/passwd"):
            with pytest.raises(SourceError):
                files.read(f"{address}/to/{target}")
        assert not asked_elsewhere
        assert "/secret" not in asked


def test_private_addresses_are_not_connected_to(site: tuple[str, list[str]]) -> None:
    address, asked = site
    port = address.rpartition(":")[2]
    files = Files("http://", "https://", timeout=5)
    for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"):  # noqa: S104
        with pytest.raises(SourceError) as caught:
            files.read(f"http://{host}:{port}/photos/a.png")
        assert host in str(caught.value)
    with pytest.raises(SourceError, match=r"/a\.png: 127\.0\.0\.1 is not a public address: .*private=True"):
        files.read(f"http://127.0.0.1:{port}/photos/a.png")
    assert not asked
    assert Files("http://", private=True).read(f"http://localhost:{port}/photos/a.png") == b"a"  # the control


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a00:1", False),
        ("fe80::1%eth0", False),
        ("ff0e::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_errors_name_the_file_and_keep_its_secrets() -> None:
    assert shorten("https://user:password@example.com/a.png?X-Signature=secret") == "https://example.com/a.png"
    assert len(shorten("x" * 10_000)) <= 200
    assert shorten("a\x1b[31m.png") == r"a\x1b[31m.png"
    with pytest.raises(SourceError, match=r"^https://example\.com/a\.png: ") as caught:
        Files("https://example.com/photos").read("https://user:password@example.com/a.png?key=secret")
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value).partition(": ")[0]


def test_other_file_systems_by_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://photos/a.png", "wb") as file:
        file.write(b"m")
    assert Files("memory://photos").read("memory://photos/a.png") == b"m"
    with pytest.raises(SourceError, match="below no root"):
        Files("memory://photos").read("memory://other/a.png")
