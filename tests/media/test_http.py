"""Rows that name files on a web server: what passes is tried again, what does not is a failure; ETags spare reading."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import Engine, insert, text

from embeddb import Files, register
from embeddb.worker import Options, drain
from tests.media.library import library, png
from tests.media.shop import Shop

pytest.importorskip("aiohttp", reason="needs the extra embeddb[files]")


class Web:
    """A server of files by path; ``answers``: statuses to give first."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[int]] = {}
        self.read: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = next(iter(web.answers.get(self.path, [])), 200)
                if self.command == "GET" and web.answers.get(self.path):
                    web.answers[self.path].pop(0)
                content = web.files.get(self.path)
                self.send_response(404 if content is None else status)
                if status in (301, 302):
                    self.send_header("Location", "/elsewhere/secret.png")
                body = content or b""
                self.send_header("ETag", hashlib.sha256(body).hexdigest())
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    web.read.append(self.path)
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}/photos"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


def test_what_may_pass_is_tried_again(engine18: Engine, web: Web) -> None:
    web.files = {f"/photos/{name}.png": png("red") for name in ("a", "busy", "moved")}
    web.files |= {"/photos/broken.png": b"no picture", "/elsewhere/secret.png": png("blue")}
    web.answers = {"/photos/busy.png": [503, 429], "/photos/moved.png": [302] * 9}
    names = ["a", "busy", "moved", "broken", "gone", "../elsewhere/secret"]
    models = library(web.root, files=Files(web.root, private=True, timeout=5))
    models.base.metadata.create_all(engine18)
    register(engine18, models.base, install=True)
    with engine18.begin() as connection:
        rows = [{"id": key, "path": f"{web.root}/{name}.png"} for key, name in enumerate(names)]
        connection.execute(insert(models.photo), rows)
    totals = drain(engine18, models.base, options=Options(max_attempts=4, retry=0.01))
    assert (totals.embedded, totals.failed) == (2, 4)
    with engine18.connect() as connection:
        failed = connection.execute(text("SELECT (key #>> '{}')::int, attempts FROM embeddb.failure ORDER BY 1")).all()
    assert failed == [(2, 1), (3, 1), (4, 1), (5, 1)]  # none of these was worth another attempt
    assert "/elsewhere/secret.png" not in web.read


def test_an_etag_tells_that_nothing_changed(engine18: Engine, web: Web) -> None:
    web.files = {"/photos/a.png": png("red"), "/photos/b.png": png("blue")}
    shop = Shop(engine18, web.root, Files(web.root, private=True))
    shop.add(_1=f"{web.root}/a.png", _2=f"{web.root}/b.png")
    assert shop.drain() == (2, 0)
    assert shop.rescan() == {"1": "unchanged", "2": "unchanged"}  # reads them, since no ETag is known yet
    web.read.clear()
    assert shop.rescan() == {"1": "unchanged", "2": "unchanged"}
    assert web.read == []
    web.files["/photos/a.png"] = png("white")
    del web.files["/photos/b.png"]
    assert shop.rescan() == {"1": "changed", "2": "missing"}
    assert shop.drain() == (1, 0)
    shop.connection.close()
