"""Encoders for workers in processes of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from embeddb.encoders import Vectors
from tests.worker.scripted import Scripted


class _Slow(Scripted):
    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        time.sleep(0.2)
        return super().encode_documents(inputs)


scripted = Scripted()
slow = _Slow()
stuck = Scripted(hold=threading.Event())
