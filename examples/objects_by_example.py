"""Show one object, find its like in other pictures, and where they are.

A region of a picture is a row of its own: its path ends in a box, "scene 3.png#xywh=16,40,32,32". A detector says where
something is, here whatever stands out from the ground; the embedding says what is like what. No class is trained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import Figure, database, run
from drawings import THINGS, Placed, Thing, scene
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy import ndimage
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tiny_clip import trained

from embeddb import CLIP, Files, Image, Vector, embedding_column, nearest

SCENES, KINDS = 72, 12
Box = tuple[int, int, int, int]


def detect(picture: Pillow.Image, edge: int = 3) -> list[Box]:
    """Where something stands out from the ground: (left, top, width, height), with an edge around it."""
    pixels = np.asarray(picture, float)
    outstanding = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(axis=2) > 50
    named, _ = ndimage.label(ndimage.binary_closing(outstanding, iterations=2))
    boxes = []
    for rows, columns in ndimage.find_objects(named):
        left, top = max(0, columns.start - edge), max(0, rows.start - edge)
        width, height = columns.stop + edge - left, rows.stop + edge - top
        if min(width, height) > 2 * edge + 4:
            boxes.append((left, top, width, height))
    return boxes


def shown_in(box: Box, objects: list[Placed]) -> Thing | None:
    """The thing whose middle is in the box."""
    for thing, (left, top, width, height) in objects:
        if 0 <= left + width / 2 - box[0] < box[2] and 0 <= top + height / 2 - box[1] < box[3]:
            return thing
    return None


def small(picture: Pillow.Image, box: Box) -> NDArray[np.float64]:
    """The pixels of a region, for the control."""
    left, top, width, height = box
    return np.asarray(picture.crop((left, top, left + width, top + height)).resize((32, 32)), float)


def main(url: str | None = None, model: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(1)
    wanted = [THINGS[place] for place in rng.permutation(len(THINGS))[:KINDS]]
    with tempfile.TemporaryDirectory() as folder:
        files = Files(folder)

        class Base(DeclarativeBase):
            pass

        class Region(Base):
            __tablename__ = "regions"
            id: Mapped[int] = mapped_column(primary_key=True)
            path: Mapped[str]
            embedding: Mapped[Vector | None] = embedding_column(
                "path", encoder=CLIP(model or trained()), files=files, mode="inline"
            )

        shows: dict[str, Thing | None] = {}
        pixels: dict[str, NDArray[np.float64]] = {}
        for number in range(SCENES):
            things = [wanted[number % KINDS], wanted[(number + 1) % KINDS], *rng.permutation(np.array(THINGS))[:2]]
            picture, objects = scene([Thing(*thing) for thing in things], rng)
            picture.save(Path(folder, f"scene {number}.png"))
            for box in detect(picture):
                path = f"scene {number}.png#xywh={','.join(map(str, box))}"
                shows[path], pixels[path] = shown_in(box, objects), small(picture, box)

        with database(Base, url) as sessions, sessions() as session:
            session.add_all(Region(path=path) for path in shows)
            session.commit()
            right = by_pixels = there = 0
            for thing in wanted:
                picture, _ = scene([thing], rng)
                picture.save(Path(folder, "example.png"))
                [box] = detect(picture)
                example = Image(f"example.png#xywh={','.join(map(str, box))}", files=files)
                many = sum(shown == thing for shown in shows.values())
                found = session.scalars(nearest(Region.embedding, example).limit(many)).all()
                print(f"like {thing.caption}:")
                for path in (region.path for region in found[:2]):
                    print(f"    {path}, which shows {shown.caption if (shown := shows[path]) else 'nothing'}")
                away = {path: np.square(pixels[path] - small(picture, box)).sum() for path in shows}
                right += sum(shows[region.path] == thing for region in found)
                by_pixels += sum(shows[path] == thing for path in sorted(away, key=away.__getitem__)[:many])
                there += many
    return [Figure("objects found, with their place", right / there, by_pixels / there, "comparing pixels")]


if __name__ == "__main__":
    run(main)
