"""Pictures to search among: one shape on some dark ground, and scenes of several."""

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
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


class Placed(NamedTuple):
    """A thing in a scene: its left, top, width and height in pixels."""

    thing: Thing
    box: tuple[int, int, int, int]


THINGS: Final = tuple(Thing(*each) for each in itertools.product(COLOURS, SHAPES))


def draw(thing: Thing, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A picture of it, of any size, anywhere, turned a little."""
    picture = _ground(side, rng)
    radius = int(rng.integers(side // 4, side // 2 - 3))
    x, y = rng.integers(radius + 1, side - radius, 2).tolist()
    _paint(picture, thing, x, y, radius, rng)
    return noisy(picture, rng)


def scene(things: list[Thing], rng: np.random.Generator, side: int = 3 * SIDE) -> tuple[Image.Image, list[Placed]]:
    """A picture of several things that do not touch, and where they are."""
    picture = _ground(side, rng)
    placed: list[Placed] = []
    while len(placed) < len(things):
        radius = int(rng.integers(9, 13))
        x, y = rng.integers(radius + 4, side - radius - 4, 2).tolist()
        if all(max(abs(x - left - w // 2), abs(y - top - h // 2)) > radius + w // 2 for _, (left, top, w, h) in placed):
            _paint(picture, things[len(placed)], x, y, radius, rng)
            edge = radius + 3
            placed.append(Placed(things[len(placed)], (x - edge, y - edge, 2 * edge, 2 * edge)))
    return noisy(picture, rng), placed


def noisy(picture: Image.Image, rng: np.random.Generator, strength: float = 8) -> Image.Image:
    """As a poor camera would take it, in light or shade."""
    pixels = np.asarray(picture, float) * rng.uniform(0.6, 1.1)
    pixels += rng.normal(0, strength, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _ground(side: int, rng: np.random.Generator) -> Image.Image:
    red, green, blue = rng.integers(0, 90, 3).tolist()
    return Image.new("RGB", (side, side), (red, green, blue))


def _paint(picture: Image.Image, thing: Thing, x: int, y: int, r: int, rng: np.random.Generator) -> None:
    red, green, blue = (int(np.clip(value + rng.normal(0, 15), 0, 255)) for value in COLOURS[thing.colour])
    stencil = Image.new("L", picture.size)
    pen, box = ImageDraw.Draw(stencil), (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        pen.ellipse(box, fill=255)
    elif thing.shape == "square":
        pen.rectangle(box, fill=255)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=255)
    elif thing.shape == "cross":
        pen.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill=255)
        pen.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill=255)
    elif thing.shape == "bar":
        pen.rectangle((x - r, y - r // 4 - 1, x + r, y + r // 4 + 1), fill=255)
    else:
        pen.ellipse(box, outline=255, width=max(2, r // 3))
    turned = stencil.rotate(rng.uniform(-40, 40), Image.Resampling.BILINEAR, center=(x, y))
    picture.paste((red, green, blue), mask=turned)
