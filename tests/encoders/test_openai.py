from __future__ import annotations

import base64
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from embeddb.encoders import OpenAI, embed_documents, embed_query, from_config
from embeddb.errors import EncoderError, MissingExtra, RateLimited, TransientEncoderError
from tests.encoders.encoder_stubs import letters
from tests.encoders.http_stub import Request, Response, serve

pytest.importorskip("httpx", reason="needs the extra embeddb[remote]")
pytest.importorskip("tenacity", reason="needs the extra embeddb[remote]")

KEY = "sk-do-not-tell-anyone"


class Server:
    """Speaks ``/embeddings``: each text's own vector, unless ``script`` has another answer for the next request."""

    def __init__(self) -> None:
        self.url = ""
        self.dim = 4
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Callable[[dict[str, Any]], Response]] = []
        self.pause = 0.0
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Response:
        body = json.loads(request.body)
        with self._lock:
            self.requests.append(body)
            self.headers.append(request.headers)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            scripted = self.script.pop(0) if self.script else None
        time.sleep(self.pause)
        with self._lock:
            self.at_once -= 1
        if request.path != "/v1/embeddings":
            return Response(404, b'{"error": "no such path"}')
        return scripted(body) if scripted else self.embed(body)

    def embed(self, body: dict[str, Any]) -> Response:
        vectors = [letters(text, body.get("dimensions", self.dim)) for text in body["input"]]
        as_text = body["encoding_format"] == "base64"
        return data([base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist() for vector in vectors])


def data(embeddings: list[Any], indexes: list[int] | None = None) -> Response:
    order = indexes if indexes is not None else range(len(embeddings))
    items = [
        {"object": "embedding", "index": index, "embedding": embeddings[place]} for place, index in enumerate(order)
    ]
    return Response(body=json.dumps({"object": "list", "data": items, "model": "m"}).encode())


def failure(status: int, message: str = "down", **headers: str) -> Callable[[Any], Response]:
    body = json.dumps({"error": {"message": message, "type": "t"}}).encode()
    return lambda _: Response(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def server() -> Iterator[Server]:
    stub = Server()
    with serve(stub.answer) as url:
        stub.url = f"{url}/v1"
        yield stub


def encoder(server: Server, **settings: Any) -> OpenAI:
    return OpenAI("m", **{"dim": server.dim, "base_url": server.url, **settings})


TEXTS = ["one", "three", "fourteen", "one", "π ≈ 3.14159"]


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_vectors_arrive_as_they_were_sent(server: Server, encoding_format: Any) -> None:
    vectors = embed_documents(encoder(server, encoding_format=encoding_format), TEXTS)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_array_equal(vector, letters(text, 4))
    assert server.requests[0]["model"] == "m"
    assert server.requests[0]["encoding_format"] == encoding_format
    assert "dimensions" not in server.requests[0]
    assert "authorization" not in server.headers[0], "no key goes to a server that none was named for"


def test_answers_out_of_order(server: Server) -> None:
    vectors = [letters(text, 4).tolist() for text in ("c", "a", "b")]
    server.script = [lambda _: data(vectors, [2, 0, 1])]
    np.testing.assert_array_equal(encoder(server).encode_documents(["a", "b", "c"])[2], letters("c", 4))


def test_prompts(server: Server) -> None:
    prompted = encoder(server, query_prompt="query: ", document_prompt="passage: ")
    np.testing.assert_array_equal(embed_query(prompted, "one"), letters("query: one", 4))
    np.testing.assert_array_equal(embed_documents(prompted, ["one"])[0], letters("passage: one", 4))


def test_shorter_vectors_are_asked_for(server: Server) -> None:
    assert encoder(server, dim=3, send_dimensions=True).encode_documents(["a"]).shape == (1, 3)
    assert server.requests[-1]["dimensions"] == 3
    small = OpenAI("text-embedding-3-small", dim=256, base_url=server.url)
    assert small.encode_documents(["a"]).shape == (1, 256)
    assert OpenAI("text-embedding-3-small").dim == 1536
    assert OpenAI("text-embedding-3-large").dim == 3072


def test_batches_by_count_and_by_size(server: Server) -> None:
    texts = [f"{number:03d}" for number in range(10)]
    vectors = encoder(server, batch_size=4, concurrency=1).encode_documents(texts)
    assert sorted(len(request["input"]) for request in server.requests) == [2, 4, 4]
    np.testing.assert_array_equal(vectors, [letters(text, 4) for text in texts])
    server.requests.clear()
    encoder(server, batch_characters=7, concurrency=1).encode_documents([*texts[:5], "one that is too long alone", "z"])
    assert [len(request["input"]) for request in server.requests] == [2, 2, 1, 1, 1]
    assert encoder(server).encode_documents([]).shape == (0, 4)


def test_no_more_requests_at_once_than_allowed(server: Server) -> None:
    server.pause = 0.02
    limited = encoder(server, batch_size=1, concurrency=3)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: limited.encode_documents([f"{n}-{i}" for i in range(8)]), range(4)))
    assert server.most_at_once == 3
    np.testing.assert_array_equal(results[2][5], letters("2-5", 4))


def test_a_failure_that_passes_is_tried_again(server: Server) -> None:
    server.script = [failure(500), failure(503, retry_after="0")]
    assert encoder(server).encode_documents(["a"]).shape == (1, 4)
    assert len(server.requests) == 3


def test_a_failure_that_stays_is_transient(server: Server) -> None:
    server.script = [failure(502, "bad gateway")] * 9
    with pytest.raises(TransientEncoderError, match=r"OpenAI\('m'.*answered 502: bad gateway"):
        encoder(server, max_wait=3).encode_documents(["a"])
    assert 1 < len(server.requests) < 9, "tried again, but not for ever"


def test_a_short_wait_is_waited_for(server: Server) -> None:
    server.script = [failure(429, retry_after="1")]
    start = time.monotonic()
    assert encoder(server).encode_documents(["a"]).shape == (1, 4)
    assert time.monotonic() - start >= 1, "not before the server said so"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "90"}, 90),
        ({"retry_after_ms": "90000"}, 90),
        ({"retry_after": "9" * 400}, 86_400),
        ({"retry_after": format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)}, 86_400),
    ],
)
def test_a_long_wait_is_left_to_the_caller(server: Server, headers: dict[str, str], seconds: float) -> None:
    server.script = [failure(429, "slow down", **headers)]
    with pytest.raises(RateLimited, match="slow down") as caught:
        embed_documents(encoder(server), ["a"])
    # The date was written as the tests were collected, which may be minutes ago.
    assert caught.value.retry_after == pytest.approx(seconds, abs=1800 if seconds > 1000 else 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", [None, "soon", "-"])
def test_a_wait_of_no_known_length(server: Server, value: str | None) -> None:
    server.script = [failure(429, **({} if value is None else {"retry_after": value}))] * 9
    with pytest.raises(RateLimited) as caught:
        encoder(server, max_wait=0.1).encode_documents(["a"])
    assert caught.value.retry_after is None


def test_a_slow_server(server: Server) -> None:
    server.pause = 0.5
    with pytest.raises(TransientEncoderError, match="no answer from the server: ReadTimeout"):
        encoder(server, timeout=0.1, max_wait=0.1).encode_documents(["a"])


def test_no_server() -> None:
    with pytest.raises(TransientEncoderError, match="no answer from the server: ConnectError"):
        OpenAI("m", dim=4, base_url="http://127.0.0.1:9", max_wait=0.1).encode_documents(["a"])


def test_a_refusal_is_not_tried_again_and_tells_no_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    keyed = encoder(server, api_key_env="MY_API_KEY")
    assert keyed.encode_documents(["a"]).shape == (1, 4)
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"
    server.script = [failure(401, f"Incorrect API key provided: {KEY}, or sk-do-no***********yone")]
    with pytest.raises(EncoderError, match="answered 401: Incorrect API key provided: …, or …") as caught:
        keyed.encode_documents(["a"])
    assert not isinstance(caught.value, TransientEncoderError)
    assert len(server.requests) == 2
    for shown in (str(caught.value), repr(keyed), json.dumps(dict(keyed.config)), pickle.dumps(keyed).decode("latin1")):
        assert KEY not in shown
        assert "sk-" not in shown


def test_one_refused_batch_stops_the_others(server: Server) -> None:
    server.script = [failure(400, "too long")]
    with pytest.raises(EncoderError, match="too long"):
        encoder(server, batch_size=1, concurrency=2).encode_documents([str(number) for number in range(50)])
    assert len(server.requests) < 50


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (data([[1.0] * 4]), "1 embeddings for 2 inputs"),
        (data([[1.0] * 4] * 2, [0, 0]), "1 embeddings for 2 inputs"),
        (data([[1.0] * 4] * 2, [0, 2]), "2 embeddings for 2 inputs"),
        (data([[1.0] * 3] * 2), "gives 3 dimensions, not 4: set dim"),
        (data([[[1.0] * 4]] * 2), "holds no embeddings"),
        (data(["not base64!", "x"]), "holds no embeddings"),
        (data([None, None]), "holds no embeddings"),
        (Response(body=b"<html>"), "holds no embeddings"),
        (Response(body=b'{"data": [{"index": 1e999, "embedding": [1]}]}'), "holds no embeddings"),
        (Response(body=b'{"data": 3}'), "holds no embeddings"),
        (Response(body=b"[]"), "holds no embeddings"),
        (Response(302, headers={"location": "http://127.0.0.1:9/"}), "answered 302"),
        (Response(418, b"short and stout"), "answered 418: short and stout"),
        (Response(400, b'{"detail": [{"msg": "no"}]}'), "answered 400: .*no"),
    ],
)
def test_answers_that_cannot_be_used(server: Server, response: Response, message: str) -> None:
    server.script = [lambda _: response]
    with pytest.raises(EncoderError, match=message):
        encoder(server).encode_documents(["a", "b"])
    assert len(server.requests) == 1


def test_the_key_is_named_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EncoderError, match="set the environment variable OPENAI_API_KEY"):
        OpenAI("text-embedding-3-small").encode_queries(["a"])
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")  # which the HTTP library would show
    with pytest.raises(EncoderError, match="OPENAI_API_KEY holds is no key") as caught:
        OpenAI("text-embedding-3-small").encode_queries(["a"])
    assert "lines" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "give dim"),
        ({"api_key_env": KEY}, "the name of an environment variable"),
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "ends in API_KEY or API_TOKEN"),
        ({"base_url": "http://user:secret@host/v1"}, "without a user or password"),
        ({"base_url": "file:///etc/passwd"}, "base_url is"),
        ({"encoding_format": "hex"}, "base64, float"),
        ({"batch_size": 0}, "positive"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message) as caught:
        OpenAI("m", **{"dim": 4, **settings})
    assert "secret@" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_is_a_value() -> None:
    one = OpenAI("m", dim=4, base_url="http://127.0.0.1:1/v1", query_prompt="q: ")
    assert from_config(json.loads(json.dumps(dict(one.config)))) == one == pickle.loads(pickle.dumps(one))
    assert one.fingerprint == OpenAI("m", dim=4, base_url="http://elsewhere/v1", query_prompt="q: ").fingerprint
    others = [OpenAI("n", dim=4), OpenAI("m", dim=5), OpenAI("m", dim=4), OpenAI("m", dim=4, send_dimensions=True)]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'embeddb\[remote\]'"):
        OpenAI("m", dim=4, base_url="http://127.0.0.1:9").encode_documents(["a"])
