"""Words find pictures, and pictures find pictures: both are vectors of one space.

A tiny model is taught to see drawings. With a real one, ``main(model="openai/clip-vit-base-patch32")``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from common import Figure, database, run
from drawings import Thing, draw
from PIL import Image as Pillow
from sqlalchemy import LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tiny_clip import UNSEEN, trained

from embeddb import CLIP, Image, Vector, embedding_column, nearest, similar_to

EACH = 5


def main(url: str | None = None, model: str | None = None) -> list[Figure]:
    class Base(DeclarativeBase):
        pass

    class Picture(Base):
        __tablename__ = "pictures"
        id: Mapped[int] = mapped_column(primary_key=True)
        shows: Mapped[str]  # only to count what was found
        file: Mapped[bytes] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column("file", encoder=CLIP(model or trained()), mode="inline")

    def share(found: Sequence[Picture], thing: Thing) -> float:
        return sum(picture.shows == thing.caption for picture in found) / EACH

    rng = np.random.default_rng(1)
    with database(Base, url) as sessions, sessions() as session:
        pictures = [Picture(shows=thing.caption, file=png(draw(thing, rng))) for thing in UNSEEN for _ in range(EACH)]
        session.add_all(pictures)
        session.commit()

        drawn = [Pillow.open(io.BytesIO(picture.file)) for picture in pictures]
        by_words = by_picture = by_pixels = 0.0
        for thing in UNSEEN:
            found = session.scalars(nearest(Picture.embedding, thing.caption).limit(EACH)).all()
            by_words += share(found, thing)
            example = draw(thing, rng)
            alike = session.scalars(nearest(Picture.embedding, Image(example)).limit(EACH)).all()
            away = [np.square(np.asarray(each, float) - np.asarray(example, float)).sum() for each in drawn]
            by_picture += share(alike, thing)
            by_pixels += share([pictures[place] for place in np.argsort(away)[:EACH]], thing)
            print(f"{thing.caption}: {', '.join(picture.shows for picture in found)}")
        more = session.scalars(similar_to(found[0]).limit(2)).all()
        print(f"more like the last: {', '.join(picture.shows for picture in more)}")
    kinds = len(UNSEEN)
    return [
        Figure("of the five found by a caption, right", by_words / kinds, 1 / kinds, "by chance"),
        Figure("of the five found by a picture, right", by_picture / kinds, by_pixels / kinds, "comparing pixels"),
    ]


def png(picture: Pillow.Image) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    run(main)
