"""Some five hundred files and names that no reader should trust, each with what may come of it."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """``name``: what a row holds. ``may_decode``: a damaged file may still be an image; else it must be refused."""

    label: str
    name: str
    may_decode: bool = False


SECRET = b"the secret outside of the root"


def write(root: Path, outside: Path) -> list[Case]:
    """Write the files below ``root`` (and a secret in ``outside``), and list the names to try."""
    (outside / "secret.png").write_bytes(SECRET)
    cases = [*_truncated(root), *_flipped(root), *_bombs(root), *_wrong_types(root)]
    cases += [*_links(root, outside), *_special(root), *_names(root, outside), *_urls()]
    return cases


def encoded(form: str, size: tuple[int, int] = (40, 30), **settings: Any) -> bytes:
    """A picture in that format."""
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, form, **settings)
    return out.getvalue()


def _truncated(root: Path) -> Iterator[Case]:
    """Cut off at every twentieth of their length; what is cut in the last bytes may still be whole as a picture."""
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encoded(form)
        for part in range(20):
            name = f"cut-{part}.{form.lower()}"
            (root / name).write_bytes(whole[: len(whole) * part // 20])
            yield Case(f"truncated {form} {part}/20", name, may_decode=False)


def _flipped(root: Path) -> Iterator[Case]:
    """With bytes changed at random, the header's among them."""
    rng = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = np.frombuffer(encoded(form), np.uint8)
        for number in range(40):
            damaged = whole.copy()
            within = min(64, len(whole)) if number % 2 else len(whole)
            damaged[rng.integers(0, within, 1 + number // 4)] = rng.integers(0, 256)
            name = f"flipped-{number}.{form.lower()}"
            (root / name).write_bytes(damaged.tobytes())
            yield Case(f"flipped {form} {number}", name, may_decode=True)


def _bombs(root: Path) -> Iterator[Case]:
    """Small files that would be large pictures."""
    for side in (20_000, 65_535, 2**31 - 1):
        name = f"bomb-{side}.png"
        (root / name).write_bytes(_png_of_nothing(side, side))
        yield Case(f"PNG of {side}×{side}", name)
        name = f"bomb-{side}.bmp"
        header = (
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)
        )
        (root / name).write_bytes(header)
        yield Case(f"BMP of {side}×{side}", name)
    name = "bomb.gif"
    (root / name).write_bytes(b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b";")
    yield Case("GIF of 65535×65535", name)
    (root / "large.png").write_bytes(encoded("PNG") + bytes(3 * 2**20))
    yield Case("more bytes than the limit", "large.png")


def _png_of_nothing(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wrong_types(root: Path) -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(2**20))
    contents = {
        "empty": b"",
        "text": b"not a picture\n" * 50,
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch ran) (w) file\n%%EOF\n",
        "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
        "zip": archive.getvalue(),
        "elf": b"\x7fELF" + bytes(200),
        "pickle": b"cos\nsystem\n(S'touch ran'\ntR.",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "psd": b"8BPS\x00\x01" + bytes(100),
        "ico": b"\x00\x00\x01\x00\x01\x00" + bytes(100),
        "fli": bytes(4) + b"\x11\xaf" + bytes(200),
        "mic": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "pcx": b"\x0a\x05\x01\x08" + bytes(124),
    }
    rng = np.random.default_rng(2)
    for number in range(40):
        contents[f"noise-{number}"] = rng.integers(0, 256, 400 + number, np.uint8).tobytes()
    for label, data in contents.items():
        for suffix in (".png", ".jpg") if not label.startswith("noise") else (".png",):
            (root / f"{label}{suffix}").write_bytes(data)
            yield Case(f"{label} as {suffix}", f"{label}{suffix}")


def _links(root: Path, outside: Path) -> Iterator[Case]:
    folder = root / "inner"
    folder.mkdir()
    for name, target in {
        "out.png": outside / "secret.png",
        "relative.png": Path(os.path.relpath(outside / "secret.png", root)),
        "passwd.png": Path("/etc/passwd"),
        "zero.png": Path("/dev/zero"),
        "environ.png": Path("/proc/self/environ"),
        "dangling.png": root / "nowhere.png",
        "circle.png": root / "circle.png",
        "to-folder.png": outside,
        "to-root": root,
    }.items():
        (root / name).symlink_to(target)
        yield Case(f"link {name}", name)
    (root / "door").symlink_to(outside)
    (folder / "up").symlink_to(outside)
    (folder / "twice.png").symlink_to(root / "out.png")
    yield from (
        Case(f"by a link: {name}", name)
        for name in ("door/secret.png", "inner/up/secret.png", "inner/../door/secret.png", "inner/twice.png")
    )


def _special(root: Path) -> Iterator[Case]:
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    yield Case("a FIFO that nobody writes to", "pipe.png")
    yield Case("a folder", "folder.png")
    yield Case("the root itself", ".")
    yield Case("a file as a folder", "cut-9.png/more.png")


def _names(root: Path, outside: Path) -> Iterator[Case]:
    beside = root.parent / f"{root.name}-beside"
    beside.mkdir()
    (beside / "a.png").write_bytes(SECRET)
    up = os.path.relpath(outside / "secret.png", root)
    for name in (
        "",
        "\x00",
        "cut-9.png\x00.jpg",
        "a\nb.png",
        "\x7f.png",
        " ",
        "nowhere.png",
        "x" * 5000,
        "y/" * 2000 + "a.png",
        "../" * 40 + "etc/passwd",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
        "//etc/passwd",
        "~/.ssh/id_rsa",
        "~root/.profile",
        "$HOME/a.png",
        up,
        str(outside / "secret.png"),
        f"inner/../{up}",
        f"./{up}",
        str(beside / "a.png"),
        f"../{beside.name}/a.png",
        "\ud800.png",
        "..\\..\\windows\\win.ini",
        "C:\\windows\\win.ini",
        f"file://{outside}/secret.png",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file://evil.example/etc/passwd",
        f"file://{root}/%2e%2e/{outside.name}/secret.png",
        "file:///etc/passwd%00.png",
        "file://localhost/etc/passwd",
    ):
        yield Case(f"name {name[:30]!r}", name)


def _urls() -> Iterator[Case]:
    """For roots that allow every host by http and https, but only public addresses."""
    hosts = (
        "127.0.0.1",
        "127.1",
        "0.0.0.0",  # noqa: S104 - nothing listens
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
    )
    for host in hosts:
        for scheme in ("http", "https"):
            yield Case(f"{scheme} to {host}", f"{scheme}://{host}:9/a.png")
    for name in (
        "http://",
        "http:///a.png",
        "http://[::1/a.png",
        "http://user:password@127.0.0.1/a.png",
        "http://127.0.0.1\\@example.com/a.png",
        "http://127.0.0.1:99999/a.png",
        "http://127.0.0.1:x/a.png",
        "ftp://127.0.0.1/a.png",
        "gopher://127.0.0.1/a",
        "data://text/plain;base64,AAAA",
        "local:///etc/passwd",
        "memory://a.png",
        "zip://a.png::file:///etc/passwd.zip",
        "simplecache::http://127.0.0.1/a.png",
        "ssh://127.0.0.1/a.png",
        "github://org:repo@/a.png",
        "s3://other-bucket/a.png",
        "s3://bucket/photos/../secret.png",
        "s3://bucket/photos/%2e%2e/secret.png",
        "s3://bucket/photos/%252e%252e/secret.png",
        "s3://bucket/photos-of-others/a.png",
    ):
        yield Case(f"URL {name}", name)
