"""From a row's sources to an encoder's input: parts of files, roots by the environment, and memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddb.errors import SourceError, TransientSourceError
from embeddb.sources import Audio, Image, inputs
from embeddb.sources.files import Files
from embeddb.sources.fragments import Box, Span, passages, split
from embeddb.sources.inputs import Inputs, Reader
from embeddb.sources.roots import VARIABLE, here
from embeddb.waveform import Waveform

pillow = pytest.importorskip("PIL.Image", reason="needs the extra embeddb[image]")
soundfile = pytest.importorskip("soundfile", reason="needs the extra embeddb[audio]")


@pytest.mark.parametrize(
    ("name", "file", "part"),
    [
        ("a.wav#t=10,20", "a.wav", Span(10, 20)),
        ("a.wav#t=npt:0.5", "a.wav", Span(0.5, None)),
        ("a.wav#t=,2", "a.wav", Span(0, 2)),
        ("https://x.example/a.png?b#xywh=1,2,3,4", "https://x.example/a.png?b", Box((1, 2, 3, 4), False)),
        ("a#b.png#xywh=percent:25,0,50.5,100", "a#b.png", Box((25, 0, 50.5, 100), True)),
        ("a#b.png", "a#b.png", None),
        ("a.wav#t=", "a.wav#t=", None),
        ("a.wav#t=-1,2", "a.wav#t=-1,2", None),
        ("a.png#xywh=1,2,3", "a.png#xywh=1,2,3", None),
    ],
)
def test_fragments(name: str, file: str, part: Span | Box | None) -> None:
    assert split(name) == (file, part)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:10, 30:40] = (255, 0, 0)
    pillow.fromarray(pixels).save(tmp_path / "a.png")
    ramp = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "a.wav", np.concatenate([ramp, ramp]), 8_000, subtype="FLOAT")
    return tmp_path


def test_boxes(root: Path) -> None:
    reader = Reader("image", Files(root))
    whole = np.asarray(reader.read("a.png").value)
    for box in ("30,5,10,5", "percent:75,25,25,25", "30,5,9999,5"):
        np.testing.assert_array_equal(np.asarray(reader.read(f"a.png#xywh={box}").value), whole[5:10, 30:40])
    assert reader.read("a.png#xywh=0,0,1,1").state == reader.read("a.png").state
    for wrong, message in (("#xywh=40,0,5,5", "nothing of the picture"), ("#t=1,2", "no part in time")):
        with pytest.raises(SourceError, match=rf"a\.png{wrong}: .*{message}"):
            reader.read(f"a.png{wrong}")


def test_spans(root: Path) -> None:
    reader = Reader("audio", Files(root))
    whole = reader.read("a.wav").value
    part = reader.read("a.wav#t=0.5,1.5").value
    np.testing.assert_array_equal(part.samples, whole.samples[4_000:12_000])
    assert part.samples.base is None
    assert len(reader.read("a.wav#t=3.5").value) == 4_000
    for wrong, message in (("#t=4,5", "no sound there, it lasts 4.00 s"), ("#xywh=0,0,1,1", "no part in space")):
        with pytest.raises(SourceError, match=rf"a\.wav{wrong}: .*{message}"):
            reader.read(f"a.wav{wrong}")


def test_queries_name_parts_too(root: Path) -> None:
    files = Files(root)
    assert Image("a.png#xywh=30,5,10,5", files).decode().size == (10, 5)
    assert Audio("a.wav#t=1,2", files).decode().seconds == 1
    with pytest.raises(SourceError, match="no sound there"):
        Audio("a.wav#t=10,20", files).decode()
    assert Audio(root / "a.wav").decode().seconds == 4


def test_passages_cover_a_recording() -> None:
    assert list(passages("a.wav", 25, seconds=10)) == ["a.wav#t=0,10", "a.wav#t=10,20", "a.wav#t=15,25"]
    assert list(passages("a.wav", 20, seconds=10, hop=5)) == ["a.wav#t=0,10", "a.wav#t=5,15", "a.wav#t=10,20"]
    assert list(passages("a.wav", 2.5, seconds=10)) == ["a.wav#t=0,2.5"]
    with pytest.raises(SourceError, match="hop must be above 0"):
        list(passages("a.wav", 2.5, seconds=1, hop=2))


def test_a_file_is_decoded_once_for_parts_that_follow_one_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fetch = Files.fetch

    def watched(self: Files, name: str) -> Any:
        fetched.append(name)
        return fetch(self, name)

    monkeypatch.setattr(Files, "fetch", watched)
    of_audio = Inputs(("path",), None, Reader("audio", Files(root)))
    rows = [(name, [name]) for name in passages("a.wav", 4, seconds=1)]
    [part] = of_audio.parts(rows)
    assert [name for name, _ in part.inputs] == [name for name, _ in rows]
    assert fetched == ["a.wav"]


def test_parts_hold_what_memory_can(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PART", 3 * 40 * 20 * 3)
    rows: list[tuple[int, list[Any]]] = [(n, ["a.png"]) for n in range(7)]
    rows[2] = (2, [None])
    rows[3] = (3, ["../a.png"])
    found = list(Inputs(("path",), None, Reader("image", Files(root))).parts(rows))
    assert [[row for row, _ in part.inputs] for part in found] == [[0, 1, 4], [5, 6]]
    assert found[0].blank == [2]
    assert [row for row, _ in found[0].failed] == [3]
    texts = Inputs(("a", "b"), "{b} {a}", Reader("text"))
    [part] = texts.parts([(0, ["x", "y"]), (1, [" ", None]), (2, ["\0", ""])])
    assert (part.inputs, part.blank, part.failed[0][0]) == ([(0, "y x")], [1], 2)


def test_bytes_and_what_is_neither(root: Path) -> None:
    of_image = Inputs(("data",), None, Reader("image"))
    assert of_image.compose([memoryview((root / "a.png").read_bytes())]).size == (40, 20)
    assert of_image.compose([None]) is None
    with pytest.raises(SourceError, match="its bytes: the file is empty"):
        of_image.compose([b""])
    with pytest.raises(SourceError, match=r"a\.png: nothing says which files may be read"):
        of_image.compose(["a.png"])
    with pytest.raises(SourceError, match="source 'data' is int, not text"):
        of_image.compose([3])
    with pytest.raises(SourceError, match="an encoder of text does not take bytes"):
        Inputs(("data",), None, Reader("text")).compose([b"a"])
    sound = Inputs(("data",), None, Reader("audio")).compose([(root / "a.wav").read_bytes()])
    assert isinstance(sound, Waveform)


def test_limits_are_those_of_the_policy(root: Path) -> None:
    for files, modality, name in (
        (Files(root, max_pixels=799), "image", "a.png"),
        (Files(root, max_seconds=3.9), "audio", "a.wav"),
        (Files(root, max_bytes=50), "image", "a.png"),
    ):
        with pytest.raises(SourceError, match=rf"{name}.*raise max_"):
            Reader(modality, files).read(name)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="its bytes: the file is larger than 50 bytes"):
        Reader("image", Files(root, max_bytes=50)).read((root / "a.png").read_bytes())


@pytest.mark.parametrize(
    ("setting", "roots"),
    [
        (None, ["/srv/photos", "https://"]),
        (["/srv"], ["/srv/photos"]),
        (["/srv/photos/cats"], []),
        (["/srv/photo"], []),
        (["https://a.example/x", "http://"], ["https://a.example/x"]),
        (["/", "https://"], ["/srv/photos", "https://"]),
        ({"/srv/photos": "/mnt/photos"}, ["/mnt/photos"]),
        ({"/srv": "/mnt"}, []),
    ],
)
def test_the_environment_narrows_roots_and_says_where_they_are(
    setting: Any, roots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = Files("/srv/photos", "https://", max_bytes=7)
    if setting is not None:
        monkeypatch.setenv(VARIABLE, json.dumps(setting))
    if roots:
        assert here(declared) == Files(*roots, max_bytes=7)
    else:
        with pytest.raises(SourceError, match=f"{VARIABLE} allows none of the roots that are declared, /srv/photos"):
            here(declared)


@pytest.mark.parametrize("setting", ["/srv", "[1]", '{"/srv": 3}', '""'])
def test_an_environment_that_is_not_understood_allows_nothing(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    with pytest.raises(SourceError, match=VARIABLE):
        here(Files("/srv"))


def test_what_may_pass_is_told_from_what_will_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(error: Exception) -> Any:
        def fail(self: Files, name: str) -> Any:
            raise error

        return fail

    for error, passes in ((OSError(5, "EIO"), True), (TimeoutError(), True), (ConnectionResetError(), True),
                          (PermissionError(13, "no"), False), (ValueError("odd"), False)):  # fmt: skip
        monkeypatch.setattr(Files, "_open_local", broken(error))
        with pytest.raises(SourceError, match=r"a\.png: it cannot be read") as caught:
            Files(root).read("a.png")
        assert isinstance(caught.value, TransientSourceError) == passes, error


def test_a_stamp_changes_with_the_content(root: Path) -> None:
    files = Files(root)
    before = files.fetch("a.png")
    assert files.stamp("a.png") == before.state.stamp
    out = io.BytesIO()
    pillow.new("RGB", (40, 20), "blue").save(out, "PNG")
    (root / "a.png").write_bytes(out.getvalue())
    after = files.fetch("a.png").state
    assert after.stamp != before.state.stamp
    assert after.digest != before.state.digest
    assert after.file == before.state.file
