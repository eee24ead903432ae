"""More than five hundred damaged or hostile files and names through the worker: it goes on, and each is a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert, text

from embeddb import Files, register
from embeddb.worker import Options, drain
from tests.media.library import library, png, wav
from tests.sources import hostile

pytest.importorskip("aiohttp", reason="needs the extra embeddb[files]")

#: One attempt: a name that no server answers for would be tried again for minutes.
ONCE = Options(max_attempts=1, retry=0.01)


def failures(engine: Engine, name: str) -> dict[int, tuple[str, str]]:
    """Step and error by key."""
    query = text("SELECT (key #>> '{}')::int, step, error FROM embeddb.failures WHERE embedding = :name")
    with engine.connect() as connection:
        return {key: (step, error) for key, step, error in connection.execute(query, {"name": name})}


def embedded(engine: Engine, table: Any) -> set[int]:
    with engine.connect() as connection:
        return {row.id for row in connection.execute(table.__table__.select().where(table.embedding.is_not(None)))}


def test_files_and_names(engine18: Engine, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    cases = hostile.write(root, outside)
    # The others no column of Postgres holds.
    named = [case for case in cases if case.name.strip() and "\0" not in case.name and "\ud800" not in case.name]
    assert len(named) >= 500
    files = Files(root, "http://", "https://", "s3://bucket/photos", max_bytes=2**20, max_pixels=1_000_000, timeout=2)
    models = library(root, files=files)
    models.base.metadata.create_all(engine18)
    register(engine18, models.base, install=True)
    with engine18.begin() as connection:
        paths = [{"id": key, "path": case.name} for key, case in enumerate(named)]
        connection.execute(insert(models.photo), [*paths, {"id": 9_999, "path": "red.png"}])
        contents = sorted(path for path in root.iterdir() if path.is_file() and not path.is_symlink())
        data = [{"id": key, "data": path.read_bytes()} for key, path in enumerate(contents)]
        connection.execute(insert(models.scan), data)
    totals = drain(engine18, models.base, options=ONCE)

    failed = failures(engine18, "photos.embedding")
    known = embedded(engine18, models.photo)
    assert 9_999 in known
    wrong = [
        (case.label, failed.get(key))
        for key, case in enumerate(named)
        if (key in known) == (key in failed)
        or (key in known and not case.may_decode)
        or (key in failed and (failed[key][0] != "read" or hostile.SECRET.decode() in failed[key][1]))
    ]
    assert not wrong, wrong
    assert len(failed) > 400

    refused = failures(engine18, "scans.embedding")
    read = embedded(engine18, models.scan)
    assert refused.keys() | read == set(range(len(contents)))
    assert not refused.keys() & read
    assert {step for step, _ in refused.values()} == {"read"}
    assert totals.failed == len(failed) + len(refused)
    assert not list(outside.glob("ran*"))


def test_sounds(engine18: Engine, root: Path) -> None:
    import io

    import soundfile

    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(np.arange(8_000) / 5)
    names = []
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        out = io.BytesIO()
        soundfile.write(out, tone, 16_000, format=form, subtype=subtype)
        whole = np.frombuffer(out.getvalue(), np.uint8)
        for number in range(20):
            damaged = whole[: len(whole) * number // 20].copy()
            if number % 2:
                damaged = whole.copy()
                damaged[rng.integers(0, min(200, len(whole)), 1 + number)] = rng.integers(0, 256)
            names.append(f"damaged-{number}.{form.lower()}")
            (root / names[-1]).write_bytes(damaged.tobytes())
    lies = bytearray(wav(300))
    lies[40:44] = (2**32 - 1).to_bytes(4, "little")  # as long as a header can claim
    (root / "lies.wav").write_bytes(lies)
    (root / "picture.wav").write_bytes(png("red"))
    (root / "silent.wav").write_bytes(wav(0))
    (root / "long.wav").write_bytes(wav(300, seconds=5))
    refused = ["picture.wav", "silent.wav", "long.wav", "../passwd.wav", "/dev/zero"]
    models = library(root, files=Files(root, max_seconds=4))
    models.base.metadata.create_all(engine18)
    register(engine18, models.base, install=True)
    with engine18.begin() as connection:
        rows = [{"id": key, "path": name} for key, name in enumerate([*refused, "300.wav", "lies.wav", *names])]
        connection.execute(insert(models.take), rows)
    drain(engine18, models.base, options=ONCE)
    failed, read = failures(engine18, "takes.embedding"), embedded(engine18, models.take)
    assert failed.keys() | read == {row["id"] for row in rows}
    assert not failed.keys() & read
    assert set(range(len(refused))) <= failed.keys()
    assert len(refused) in read
    assert {step for step, _ in failed.values()} == {"read"}
