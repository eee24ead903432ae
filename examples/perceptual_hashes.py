"""The same picture, saved again: smaller, darker, as JPEG, with a caption. Its bytes are others, its hash nearly not.

The difference hash (Krawetz 2013) says of 9 × 8 grey pixels whether each is brighter than its right neighbour: 64 bits,
made by anyone who can shrink a picture, compared by how many differ. No network, no training.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from common import Figure, database, run
from PIL import Image, ImageDraw, ImageFilter
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from embeddb import bit_column, duplicates, within
from embeddb.vectors.bits import Bits

PICTURES = 250
#: So many of 64 bits may differ: of two pictures that have nothing in common, 32 do on average.
NEAR = 10


class Base(DeclarativeBase):
    pass


class Upload(Base):
    __tablename__ = "uploads"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture: Mapped[int]  # only to count what was found
    sha256: Mapped[bytes]
    hash: Mapped[Bits] = bit_column(64, metric="hamming")


def difference_hash(file: bytes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """64 bits of a picture's file."""
    pixels = np.asarray(Image.open(io.BytesIO(file)).convert("L").resize((9, 8), Image.Resampling.BOX), int)
    return np.asarray(pixels[:, 1:] > pixels[:, :-1]).ravel()


def photograph(rng: np.random.Generator) -> Image.Image:
    """Soft patches of light, as hills, sky and faces are to a hash."""
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize((160, 120), Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str = "PNG", quality: int = 90) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    picture.save(file, kind, quality=quality)
    return file.getvalue()


def copies(picture: Image.Image) -> dict[str, bytes]:
    """As it comes back from elsewhere."""
    captioned = picture.copy()
    ImageDraw.Draw(captioned).rectangle((0, 108, 160, 120), fill="black")
    return {
        "as JPEG": saved(picture, "JPEG", 40),
        "half as large": saved(picture.resize((80, 60))),
        "darker": saved(picture.point(lambda value: int(value * 0.7))),
        "blurred": saved(picture.filter(ImageFilter.GaussianBlur(3))),
        "cropped": saved(picture.crop((8, 6, 152, 114))),
        "captioned": saved(captioned),
    }


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    pictures = [photograph(rng) for _ in range(PICTURES)]
    with database(Base, url) as sessions, sessions() as session:
        for number, picture in enumerate(pictures):
            file = saved(picture)
            session.add(Upload(picture=number, sha256=hashlib.sha256(file).digest(), hash=difference_hash(file)))
        session.commit()

        known = set(session.scalars(select(Upload.sha256)))
        right = wrong = equal = asked = 0
        for number, picture in enumerate(pictures[:30]):
            for change, file in copies(picture).items():
                rows = session.execute(within(Upload.hash, difference_hash(file), distance=NEAR)).all()
                found = {upload.picture: distance for upload, distance in rows}
                right += number in found
                wrong += len(found.keys() - {number})
                equal += hashlib.sha256(file).digest() in known
                asked += 1
                if number == 0:
                    differing = f"{found[number]:.0f}" if number in found else f"more than {NEAR}"
                    print(f"{change}: {differing} of 64 bits differ, {len(rows)} within {NEAR}")
        stranger = session.execute(within(Upload.hash, difference_hash(saved(photograph(rng))), distance=NEAR)).all()
        print(f"a new picture: {len(stranger)} within {NEAR}")
        other = aliased(Upload)
        pairs = session.execute(duplicates(Upload.hash, other.hash, distance=NEAR)).all()
        print(f"pairs among the {PICTURES}: {len(pairs)}")
    f1, control = 2 * right / (asked + right + wrong), 2 * equal / (asked + equal)
    return [Figure("copies found, F1", f1, control, "equal checksums")]


if __name__ == "__main__":
    run(main)
