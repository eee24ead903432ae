"""A library of pictures and recordings: its models, and files for them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Files, Vector, embedding_column
from embeddb.metrics import MetricName
from embeddb.spec import Mode
from tests.media.senses import Colours, Pitches


class Library(NamedTuple):
    """``base``, and its classes ``photo`` (a path), ``scan`` (bytes) and ``take`` (a recording's path)."""

    base: type[DeclarativeBase]
    photo: Any
    scan: Any
    take: Any


def library(
    root: Path | str,
    *,
    metric: MetricName = "cosine",
    mode: Mode | None = None,
    files: Files | None = None,
    **settings: Any,
) -> Library:
    """Models whose files are below ``root``."""
    files = files or Files(root)

    class Base(DeclarativeBase):
        pass

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        path: Mapped[str | None]
        embedding: Mapped[Vector | None] = embedding_column(
            "path", encoder=Colours(), files=files, metric=metric, mode=mode, **settings
        )

    class Scan(Base):
        __tablename__ = "scans"
        id: Mapped[int] = mapped_column(primary_key=True)
        data: Mapped[bytes | None] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column(
            "data", encoder=Colours(), metric=metric, mode=mode, **settings
        )

    class Take(Base):
        __tablename__ = "takes"
        id: Mapped[int] = mapped_column(primary_key=True)
        path: Mapped[str | None]
        embedding: Mapped[Vector | None] = embedding_column(
            "path", encoder=Pitches(), files=files, metric=metric, mode=mode, **settings
        )

    return Library(Base, Photo, Scan, Take)


def png(colour: str | tuple[int, int, int]) -> bytes:
    """A picture of one colour."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def wav(pitch: float, seconds: float = 0.3, rate: int = 16_000) -> bytes:
    """A tone."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate), rate, format="WAV")
    return out.getvalue()


COLOURS = ("red", "lime", "blue", "yellow")
PITCHES = (300, 1_200, 2_700, 3_600)


def write_files(root: Path) -> None:
    """``red.png`` and other colours, ``300.wav`` and other pitches."""
    for colour in COLOURS:
        (root / f"{colour}.png").write_bytes(png(colour))
    for pitch in PITCHES:
        (root / f"{pitch}.wav").write_bytes(wav(pitch))
