"""Words find pictures, and pictures find pictures: both are vectors of one space.

``--model openai/clip-vit-base-patch32`` searches with a real model; by default a tiny one is taught to see drawings.
"""

from __future__ import annotations

import io

import numpy as np
from common import Figure, database, run
from drawings import draw
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

    rng = np.random.default_rng(1)
    with database(Base, url) as sessions, sessions() as session:
        for thing in UNSEEN:
            for _ in range(EACH):
                file = io.BytesIO()
                draw(thing, rng).save(file, "PNG")
                session.add(Picture(shows=thing.caption, file=file.getvalue()))
        session.commit()

        by_words = by_picture = 0.0
        for thing in UNSEEN:
            found = session.scalars(nearest(Picture.embedding, thing.caption).limit(EACH)).all()
            by_words += sum(picture.shows == thing.caption for picture in found) / EACH / len(UNSEEN)
            alike = session.scalars(nearest(Picture.embedding, Image(draw(thing, rng))).limit(EACH)).all()
            by_picture += sum(picture.shows == thing.caption for picture in alike) / EACH / len(UNSEEN)
            print(f"{thing.caption}: {', '.join(picture.shows for picture in found)}")
        more = session.scalars(similar_to(found[0]).limit(2)).all()
        print(f"more like the last: {', '.join(picture.shows for picture in more)}")
    chance = 1 / len(UNSEEN)
    return [
        Figure("of the five found by a caption, right", by_words, chance, "by chance"),
        Figure("of the five found by a picture, right", by_picture, chance, "by chance"),
    ]


if __name__ == "__main__":
    run(main)
