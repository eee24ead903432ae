"""``OpenAI``: embeddings of any server that speaks OpenAI's ``/embeddings``, at any address."""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.memo import Memo
from embeddb.encoders.protocol import Modality, Vectors
from embeddb.encoders.settings import Settings, require
from embeddb.errors import EncoderError, RateLimited, TransientEncoderError

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

EncodingFormat = Literal["base64", "float"]

_OPENAI_URL: Final = "https://api.openai.com/v1"
#: Dimensions of OpenAI's own models, https://platform.openai.com/docs/guides/embeddings.
_KNOWN: Final[Mapping[str, int]] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_KEY_VARIABLE: Final = re.compile(r"([A-Z0-9]+_)*API_(KEY|TOKEN)")
_NUMBER: Final = r"\s*\d+(\.\d+)?\s*"
_A_DAY: Final = 86_400.0
_LIKE_A_KEY: Final = re.compile(r"\b(sk-|pk-|Bearer )[\w*.…-]{6,}")


@dataclass(frozen=True, repr=False)
class OpenAI(Settings):
    """Texts by a remote model: OpenAI's, or any server with the same ``/embeddings``, such as vLLM or Ollama.

    ``model``: as the server calls it. ``dim``: its dimensions; known for OpenAI's own models, which give fewer if
    asked to. ``send_dimensions``: send ``dim`` along, for other models that can shorten their vectors.
    ``base_url``: without ``/embeddings``. ``api_key_env``: the *name* of the environment variable that holds the
    key, ending in API_KEY or API_TOKEN, so that a configuration can name no other secret; by default
    OPENAI_API_KEY for OpenAI itself and none for other servers. ``query_prompt``, ``document_prompt``: put before
    the texts. ``batch_size``, ``batch_characters``: at most so much in one request; ``concurrency``: at most so
    many requests at a time, from all threads. ``timeout``: seconds for one request. ``max_wait``: seconds to spend
    on trying again, before it is left to the caller. ``encoding_format``: how vectors travel.

    Raises RateLimited with the server's ``retry_after`` where it asks for a longer wait than ``max_wait``,
    TransientEncoderError where it cannot be reached or fails (5xx), EncoderError where it refuses (4xx).
    """

    model: str
    dim: int = 0
    base_url: str = _OPENAI_URL
    api_key_env: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    send_dimensions: bool = False
    encoding_format: EncodingFormat = "base64"
    batch_size: int = 256
    batch_characters: int = 200_000
    concurrency: int = 4
    timeout: float = 30.0
    max_wait: float = 20.0

    type: ClassVar[str] = "openai"
    modality: ClassVar[Modality] = "text"

    def __post_init__(self) -> None:
        if not self.dim:
            if self.model not in _KNOWN:
                raise EncoderError(f"{self!r}: give dim, the model's dimensions; known are {', '.join(_KNOWN)}")
            object.__setattr__(self, "dim", _KNOWN[self.model])
        if not re.match(r"https?://[^/@\s]+(/[^@\s]*)?$", self.base_url):
            # Not shown: it may hold a password.
            raise EncoderError("OpenAI: base_url is http(s)://host/path, without a user or password")
        if self.api_key_env and not _KEY_VARIABLE.fullmatch(self.api_key_env):
            raise EncoderError(
                "OpenAI: api_key_env is the name of an environment variable that ends in API_KEY or API_TOKEN, "
                "never the key itself"
            )
        if self.encoding_format not in get_args(EncodingFormat):
            raise EncoderError(f"{self!r}: encoding_format is one of {', '.join(get_args(EncodingFormat))}")
        if min(self.dim, self.batch_size, self.batch_characters, self.concurrency) < 1 or self.timeout <= 0:
            raise EncoderError(f"{self!r}: dim, batch sizes, concurrency and timeout are positive")

    @property
    def inputs_per_call(self) -> int:
        """For ``embed_documents``: as much as travels at the same time."""
        return self.batch_size * self.concurrency

    @property
    def fingerprint(self) -> str:
        """Of the model's name and what is sent; the server's weights cannot be seen, and its address is a place."""
        parts = ["openai", 1, self.model, self.dim, self._shortens, self.query_prompt, self.document_prompt]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode_documents(self, inputs: Sequence[str]) -> Vectors:
        """Vectors of shape (len(inputs), dim), float32, as the server gives them."""
        return self._encode([self.document_prompt + text for text in inputs])

    def encode_queries(self, inputs: Sequence[str]) -> Vectors:
        """The same with the prompt for queries."""
        return self._encode([self.query_prompt + text for text in inputs])

    @property
    def _shortens(self) -> bool:
        return self.send_dimensions or (self.model.startswith("text-embedding-3") and self.dim != _KNOWN[self.model])

    def _encode(self, texts: Sequence[str]) -> Vectors:
        batches = list(self._batches(texts))
        if len(batches) < 2:
            parts = [self._request(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(min(self.concurrency, len(batches)), "embeddb-openai") as pool:
                requests = [pool.submit(self._request, batch) for batch in batches]
                try:
                    parts = [request.result() for request in requests]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        return np.concatenate([np.empty((0, self.dim), np.float32), *parts])

    def _batches(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        start = characters = 0
        for position, text in enumerate(texts):
            full = position - start == self.batch_size or characters + len(text) > self.batch_characters
            if full and position > start:
                yield texts[start:position]
                start, characters = position, 0
            characters += len(text)
        if start < len(texts):
            yield texts[start:]

    def _request(self, texts: Sequence[str]) -> Vectors:
        require("httpx", "remote", "OpenAI")
        tenacity = require("tenacity", "remote", "OpenAI")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientEncoderError),
            wait=_next_wait,
            stop=tenacity.stop_before_delay(self.max_wait),
            reraise=True,
        )
        vectors: Vectors = retrying(self._post, texts)
        return vectors

    def _post(self, texts: Sequence[str]) -> Vectors:
        import httpx

        key = self._api_key()
        body: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": self.encoding_format}
        if self._shortens:
            body["dimensions"] = self.dim
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = self._client().post(f"{self.base_url.rstrip('/')}/embeddings", json=body, headers=headers)
        except httpx.TransportError as error:
            raise TransientEncoderError(
                f"{self!r}: no answer from the server: {type(error).__name__}: {error}"
            ) from error
        if response.is_success:
            return self._read(response, len(texts))
        said = f"{self!r}: the server answered {response.status_code}: {_message(response, key)}"
        if response.status_code == 429:
            raise RateLimited(said, retry_after=_retry_after(response))
        if response.status_code >= 500 or response.status_code == 408:
            raise TransientEncoderError(said)
        raise EncoderError(said)

    def _read(self, response: httpx.Response, count: int) -> Vectors:
        try:
            items = {int(item["index"]): _vector(item["embedding"]) for item in response.json()["data"]}
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise EncoderError(f"{self!r}: the server's answer holds no embeddings: {error!r}") from error
        if sorted(items) != list(range(count)):
            raise EncoderError(f"{self!r}: the server gave {len(items)} embeddings for {count} inputs")
        wrong = {vector.shape[0] for vector in items.values()} - {self.dim}
        if wrong:
            raise EncoderError(f"{self!r}: the server gives {wrong.pop()} dimensions, not {self.dim}: set dim to that")
        return np.stack([items[index] for index in range(count)])

    def _client(self) -> httpx.Client:
        # One to a process: connections do not survive a fork.
        return _clients.get((self.base_url, self.timeout, self.concurrency, os.getpid()), self._connect)

    def _connect(self) -> httpx.Client:
        import httpx

        # Waiting for one of the connections is no timeout: it is how the limit works.
        timeout = httpx.Timeout(self.timeout, pool=None)
        client = httpx.Client(timeout=timeout, limits=httpx.Limits(max_connections=self.concurrency))
        atexit.register(client.close)
        return client

    def _api_key(self) -> str | None:
        variable = self.api_key_env or ("OPENAI_API_KEY" if self.base_url == _OPENAI_URL else None)
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        if not key:
            raise EncoderError(f"{self!r}: set the environment variable {variable} to the server's key")
        if re.search(r"[^!-~]", key):  # an HTTP header could not hold it, and the error would show it
            raise EncoderError(f"{self!r}: what the environment variable {variable} holds is no key: it is one word")
        return key


_clients: Final[Memo[tuple[str, float, int, int], httpx.Client]] = Memo()


def _next_wait(state: RetryCallState) -> float:
    """What the server asks for, or else 0.5, 1, 2 … seconds."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after
    return float(0.5 * 2 ** (state.attempt_number - 1))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, at most a day: RFC 9110 section 10.2.3, a number or a date, or OpenAI's ``retry-after-ms``."""
    headers = response.headers
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if re.fullmatch(_NUMBER, milliseconds):
        return min(_A_DAY, float(milliseconds) / 1000)
    if re.fullmatch(_NUMBER, value):
        return min(_A_DAY, float(value))
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(_A_DAY, max(0.0, seconds))


def _message(response: httpx.Response, key: str | None) -> str:
    """The server's own words, without a key that it may quote."""
    try:
        answer = response.json()
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        words = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        words = response.text
    if key:
        words = words.replace(key, "…")
    return _LIKE_A_KEY.sub("…", words)[:500] or response.reason_phrase


def _vector(value: str | list[float]) -> NDArray[np.float32]:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    return np.array(value, np.float32).reshape(len(value))
