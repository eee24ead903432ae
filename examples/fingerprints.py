"""Is this the finger that unlocks the phone? One against the one that is claimed (1:1), with errors of both kinds.

The ridges are drawn by a formula: waves around a core, with forks where a spiral is added (the model of Larkin and
Fletcher 2007, "A coherent framework for fingerprint analysis"). A press turns, shifts, stretches and smudges them.
"""

from __future__ import annotations

import io

import numpy as np
from common import Figure, database, run
from metric_learning import PIXELS, trained
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import LargeBinary, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Image as Picture
from embeddb import Vector, embedding_column
from embeddb.encoders import embed_documents
from embeddb.encoders.verifier import Verifier
from embeddb.verification import equal_error_rate, pair_scores

FORKS = 8
TRAITS = 9 + 3 * FORKS
FINGERS = 60
#: So many of a hundred strangers may unlock it: the fewer, the more often the owner must press again.
FALSE_ACCEPT = 0.01


def draw(who: NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """A press of a finger."""
    down, across = np.mgrid[-1:1:48j, -1:1:48j]
    turn, size, (right, below) = rng.normal(0, 0.12), rng.normal(1, 0.03), rng.normal(0, 0.06, 2)
    x = size * (across * np.cos(turn) - down * np.sin(turn)) + right
    y = size * (across * np.sin(turn) + down * np.cos(turn)) + below
    x += 0.03 * np.sin(3 * y + rng.uniform(0, 6))  # skin gives way
    core_x, core_y, wide, high, fine, slant, tilt, wave, phase = who[:9] - 0.5
    distance = np.hypot((x - 0.8 * core_x) * (1.4 + 0.8 * wide), (y - 0.8 * core_y) * (0.9 + 0.6 * high))
    bent = distance + slant * x + 0.8 * tilt * y + 0.25 * wave * np.sin(4 * x + 6 * phase)
    ridges = (16.5 + 5 * fine) * bent
    for side, fork_x, fork_y in who[9:].reshape(FORKS, 3):
        ridges += np.sign(side - 0.5) * np.arctan2(y + 0.8 - 1.6 * fork_y, x + 0.8 - 1.6 * fork_x)
    ink = 128 - 100 * np.tanh(2 * (np.cos(1.6 * ridges) + rng.uniform(-0.4, 0.4)))
    touched = np.exp(-(np.square(across - rng.normal(0, 0.2)) + np.square(down - rng.normal(0, 0.2))) / 1.2)
    pixels = 255 - ink * touched + rng.normal(0, 25, ink.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def png(picture: Image.Image) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def main(url: str | None = None) -> list[Figure]:
    encoder = trained(draw, TRAITS)

    class Base(DeclarativeBase):
        pass

    class Finger(Base):
        __tablename__ = "fingers"
        owner: Mapped[str] = mapped_column(primary_key=True)
        file: Mapped[bytes] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column("file", encoder=encoder, mode="inline", index=None)

    rng = np.random.default_rng(1)
    others = [(draw(who, rng), number) for number, who in enumerate(rng.random((60, TRAITS))) for _ in range(4)]
    pictures, labels = [picture for picture, _ in others], [number for _, number in others]
    verifier = Verifier.calibrated(encoder, pictures, labels, false_accept=FALSE_ACCEPT)

    fingers = {f"person {number}": who for number, who in enumerate(rng.random((FINGERS, TRAITS)))}
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Finger(owner=owner, file=png(draw(who, rng))) for owner, who in fingers.items())
        session.commit()

        opened, broken_in = 0, 0
        for owner, who in fingers.items():
            for presser, finger in ((owner, who), ("a stranger", rng.random(TRAITS))):
                pressed = Finger.embedding.similarity(Picture(draw(finger, rng)))
                score = session.scalars(select(pressed).where(Finger.owner == owner)).one()
                opens = score >= verifier.threshold
                opened += opens and presser == owner
                broken_in += opens and presser != owner
                if owner in ("person 0", "person 1"):
                    print(f"{presser} at the phone of {owner}: {'opens' if opens else 'stays locked'} ({score:.2f})")
    print(f"of {FINGERS} owners {opened} got in at once, of {FINGERS} strangers {broken_in}")
    apart, control = (
        1 - equal_error_rate(*pair_scores(embed_documents(each, pictures), labels)).rate for each in (encoder, PIXELS)
    )
    right = (opened + FINGERS - broken_in) / (2 * FINGERS)
    return [
        Figure("pairs of presses told apart (1 - EER)", apart, control, "comparing pixels"),
        Figure("phones that do what they should", right, 0.5, "always locked"),
    ]


if __name__ == "__main__":
    run(main)
