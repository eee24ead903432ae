"""``Memo``: what is costly to make is made once, whoever asks and however many at the same time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from embeddb.errors import EncoderError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Values by key, the last ``size`` that were used, or all. For a module's lifetime, and from any thread.

    Who asks first makes the value; who asks meanwhile waits for that one. A failure is shared by those who wait
    and not kept: the next to ask tries again.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._forget_threads()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_threads)

    def _forget_threads(self) -> None:
        """A forked child has no other threads: nobody will release the old lock or make what is awaited."""
        self._lock = threading.Lock()
        self._awaited: dict[K, Future[V]] = {}

    def clear(self) -> None:
        """Forget all values; those being made now are not kept."""
        with self._lock:
            self._values.clear()
            self._awaited = {}

    def __contains__(self, key: K) -> bool:
        """Whether the value of that key is kept."""
        with self._lock:
            return key in self._values

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of that key; ``make()`` is called where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            awaited = self._awaited.get(key)
            mine: Future[V] = Future()
            if awaited is None:
                self._awaited[key] = mine
        return self._make(key, make, mine) if awaited is None else awaited.result()

    def _make(self, key: K, make: Callable[[], V], mine: Future[V]) -> V:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                if self._awaited.get(key) is mine:
                    del self._awaited[key]
            # An interrupt is for the thread that it came to.
            mine.set_exception(error if isinstance(error, Exception) else EncoderError("it was interrupted"))
            raise
        with self._lock:
            if self._awaited.get(key) is mine:
                del self._awaited[key]
                self._values[key] = value
                if self._size is not None and len(self._values) > self._size:
                    self._values.popitem(last=False)
        mine.set_result(value)
        return value
