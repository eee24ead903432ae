from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddb.errors import SourceError
from embeddb.sources.files import Files
from embeddb.sources.images import Image, decode
from tests.sources import hostile

pillow = pytest.importorskip("PIL.Image", reason="needs the extra embeddb[image]")


def _encode(image: Any, form: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **settings)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "AVIF"])
def test_every_format(form: str) -> None:
    image = pillow.new("RGB", (20, 10), (200, 30, 60))
    found = decode(_encode(image, form))
    assert (found.mode, found.size) == ("RGB", (20, 10))
    np.testing.assert_allclose(np.asarray(found)[5, 10], (200, 30, 60), atol=8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = (255, 0, 0)
    upright[0, 5] = (0, 255, 0)
    # What a camera stores, by the definition of EXIF's tag 274: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = pillow.Exif()
    exif[274] = orientation
    found = decode(_encode(pillow.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(found), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_leaves_the_image_as_it_is() -> None:
    image = pillow.new("RGB", (6, 4), "red")
    found = decode(_encode(image, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12"))
    assert found.size == (6, 4)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_animations_the_first_frame(form: str) -> None:
    frames = [pillow.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = _encode(frames[0], form, save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_allclose(np.asarray(decode(data))[4, 4], (255, 0, 0), atol=8)


def test_transparency_grey_palettes_and_sixteen_bits() -> None:
    clear = pillow.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.asarray(decode(_encode(clear, "PNG"))).min() == 255
    half = np.asarray(decode(_encode(pillow.new("LA", (2, 2), (0, 128)), "PNG")))
    np.testing.assert_allclose(half, 127, atol=1)
    assert np.asarray(decode(_encode(pillow.new("L", (2, 2), 77), "PNG")))[0, 0].tolist() == [77] * 3
    assert np.asarray(decode(_encode(pillow.new("CMYK", (9, 9)), "JPEG")))[0, 0].tolist() == [255] * 3
    deep = pillow.fromarray(np.full((2, 2), 0x8040, np.uint16))
    assert np.asarray(decode(_encode(deep, "PNG")))[0, 0].tolist() == [0x80] * 3
    with pytest.raises(SourceError, match="deep: 32 bit"):
        decode(_encode(pillow.fromarray(np.ones((2, 2), np.float32)), "TIFF"), name="deep")


def test_limits() -> None:
    data = _encode(pillow.new("RGB", (100, 50)), "PNG")
    with pytest.raises(SourceError, match=r"big: 100 × 50 pixels are more than 4,999"):
        decode(data, name="big", max_pixels=4_999)
    with pytest.raises(SourceError, match="big: the file is larger than"):
        decode(data, name="big", max_bytes=len(data) - 1)
    with pytest.raises(SourceError, match="more than 4,999"):
        Image(pillow.new("RGB", (100, 50)), max_pixels=4_999).decode()


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encode(pillow.new("RGB", (3, 2), "red"), "PNG"))
    for image in (Image(path), Image("a.png", files=Files(tmp_path)), Image(path.read_bytes())):
        assert image.decode().size == (3, 2)
    before = Image(path).digest
    assert before == Image(path.read_bytes()).digest
    path.write_bytes(_encode(pillow.new("RGB", (3, 2), "blue"), "PNG"))
    assert Image(path).digest != before
    with pytest.raises(SourceError, match=r"a\.png: say where it may be read from"):
        Image(str(path)).decode()
    with pytest.raises(SourceError, match="no encoded bytes"):
        Image(pillow.new("RGB", (1, 1))).read()


def test_five_hundred_damaged_or_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused with an error that names it, or is an image still; nothing outside the root is ever read."""
    pytest.importorskip("aiohttp", reason="needs the extra embeddb[files]")
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    monkeypatch.chdir(outside)
    cases = hostile.write(root, outside)
    files = Files(root, "http://", "https://", "s3://bucket/photos", max_bytes=2**20, timeout=2)
    assert len(cases) >= 500
    decoded, wrong = 0, []
    for case in cases:
        try:
            image = Image(case.name, files=files, max_pixels=1_000_000).decode()
        except SourceError as error:
            if hostile.SECRET.decode() in str(error) or len(str(error)) > 1500 or ":" not in str(error):
                wrong.append((case.label, str(error)[:200]))
        except BaseException as error:
            wrong.append((case.label, repr(error)[:200]))
        else:
            decoded += 1
            if not case.may_decode or image.size[0] * image.size[1] > 1_000_000:
                wrong.append((case.label, f"decoded as {image.size}"))
    assert not wrong, wrong
    assert decoded < len(cases) / 3
    assert not list(outside.glob("ran*"))
