"""An encoder that does what the texts say, and remembers what it was given."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from embeddb.encoders import Hashing, Vectors
from embeddb.errors import RateLimited, TransientEncoderError


@dataclass(eq=False)
class Scripted:
    """Hashing in three dimensions, with trouble by words in the text.

    "poison" fails, "kill" ends the process, "nothing" has no embedding, "flaky" fails in passing the first two times,
    "hopeless" every time, "limit" asks to wait once. ``hold``: texts wait until it is set.
    """

    fingerprint: str = "scripted"
    calls: list[int] = field(default_factory=list, repr=False)
    seen: Counter[str] = field(default_factory=Counter, repr=False)
    hold: threading.Event | None = None
    broken: bool = False
    modality: Literal["text"] = "text"
    dim: int = 3

    @property
    def config(self) -> dict[str, Any]:
        return {"type": "hashing", "dim": 3}

    def encode_documents(self, inputs: Sequence[Any]) -> Vectors:
        self.calls.append(len(inputs))
        self.seen.update(inputs)
        if self.hold is not None:
            self.hold.wait(20)
        if self.broken:
            raise RuntimeError("the encoder is broken")
        for text in inputs:
            if "kill" in text:
                time.sleep(0.1)
                os._exit(9)
            if "poison" in text:
                raise ValueError(f"cannot embed {text!r}")
            if "hopeless" in text or ("flaky" in text and self.seen[text] <= 2):
                raise TransientEncoderError("the service is away")
            if "limit" in text and self.seen[text] == 1:
                raise RateLimited("slow down", retry_after=0.4)
        vectors = Hashing(dim=self.dim).encode_documents(inputs)
        vectors[["nothing" in text for text in inputs]] = np.nan
        return vectors

    encode_queries = encode_documents
