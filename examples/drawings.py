"""Pictures to search among: one shape on a dark ground, and scenes of several."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SIDE: Final = 32
COLOURS: Final = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 70, 220),
    "yellow": (225, 215, 50),
    "purple": (160, 50, 190),
    "white": (240, 240, 240),
    "orange": (240, 130, 30),
    "cyan": (50, 210, 210),
}
SHAPES: Final = ("circle", "square", "triangle", "cross", "ring", "bar")


class Thing(NamedTuple):
    """What there is to draw."""

    colour: str
    shape: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape}"


class Placed(NamedTuple):
    """A thing in a scene: its left, top, width and height in pixels."""

    thing: Thing
    box: tuple[int, int, int, int]


THINGS: Final = tuple(Thing(*each) for each in itertools.product(COLOURS, SHAPES))


def draw(thing: Thing, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A picture of it, of any size, anywhere, in light that varies."""
    picture = Image.new("RGB", (side, side), (20, 20, 20))
    radius = int(rng.integers(side // 4, side // 2 - 3))
    x, y = rng.integers(radius + 1, side - radius, 2).tolist()
    _paint(ImageDraw.Draw(picture), thing, x, y, radius, rng)
    return noisy(picture, rng)


def scene(things: list[Thing], rng: np.random.Generator, side: int = 3 * SIDE) -> tuple[Image.Image, list[Placed]]:
    """A picture of several things that do not touch, and where they are."""
    picture = Image.new("RGB", (side, side), (20, 20, 20))
    pen, placed = ImageDraw.Draw(picture), list[Placed]()
    while len(placed) < len(things):
        radius = int(rng.integers(9, 13))
        x, y = rng.integers(radius + 4, side - radius - 4, 2).tolist()
        if all(max(abs(x - left - w // 2), abs(y - top - h // 2)) > radius + w // 2 for _, (left, top, w, h) in placed):
            _paint(pen, things[len(placed)], x, y, radius, rng)
            edge = radius + 3
            placed.append(Placed(things[len(placed)], (x - edge, y - edge, 2 * edge, 2 * edge)))
    return noisy(picture, rng), placed


def noisy(picture: Image.Image, rng: np.random.Generator, strength: float = 8) -> Image.Image:
    """As a poor camera would take it."""
    pixels = np.asarray(picture, float) + rng.normal(0, strength, (*picture.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _paint(pen: ImageDraw.ImageDraw, thing: Thing, x: int, y: int, r: int, rng: np.random.Generator) -> None:
    red, green, blue = (int(np.clip(value + rng.normal(0, 15), 0, 255)) for value in COLOURS[thing.colour])
    fill, box = (red, green, blue), (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        pen.ellipse(box, fill=fill)
    elif thing.shape == "square":
        pen.rectangle(box, fill=fill)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    elif thing.shape == "cross":
        pen.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill=fill)
        pen.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill=fill)
    elif thing.shape == "bar":
        pen.rectangle((x - r, y - r // 4 - 1, x + r, y + r // 4 + 1), fill=fill)
    else:
        pen.ellipse(box, outline=fill, width=max(2, r // 3))
