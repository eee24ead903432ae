"""Whose face is it? One against all who are enrolled, and nobody where nobody is near enough (1:N).

The network is one's own, trained on people who are not among those it is used for. The faces are drawings; before you
do this to people, ask whether you may.
"""

from __future__ import annotations

import numpy as np
from common import Figure, database, run
from metric_learning import PIXELS, trained
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, vector_column, within
from embeddb.encoders import embed_query
from embeddb.encoders.verifier import Verifier

TRAITS, TAKES = 15, 4
#: Of so many pairs of strangers one may pass; searching among 60 enrolled is 60 such chances.
FALSE_ACCEPT = 0.003


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    face: Mapped[Vector | None] = vector_column(64)  # the mean of the pictures at enrolment


def draw(who: NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """A picture of a face: what is ``who`` stays, expression, pose, light and focus vary."""
    now = who + rng.normal(0, 0.02, TRAITS)
    picture = Image.new("L", (96, 96), int(rng.integers(20, 120)))
    pen = ImageDraw.Draw(picture)
    x, y = (48 + rng.normal(0, 1.5, 2)).tolist()
    skin, hair = int(150 + 70 * who[0]), int(10 + 90 * who[1])
    width, height = 20 + 13 * now[2], 28 + 13 * now[3]
    pen.ellipse((x - width - 3, y - height - 5, x + width + 3, y + height - 4), fill=hair)
    pen.ellipse((x - width, y - height + 4 + 10 * now[4], x + width, y + height), fill=skin)
    look = rng.normal(0, 0.8)
    for side in (-1, 1):
        eye, level, round_ = x + side * (6 + 8 * now[5]), y - 3 - 9 * now[6], 2 + 3.5 * now[7]
        pen.ellipse((eye - round_ * 1.5, level - round_, eye + round_ * 1.5, level + round_), fill=250)
        pen.ellipse((eye - 2 + look, level - 2, eye + 2 + look, level + 2), fill=20)
        tilt, brow = side * (3 * now[8] - 1.5), level - round_ - 4
        pen.line((eye - 6, brow - tilt, eye + 6, brow + tilt), fill=hair, width=int(1 + 4 * who[9]))
    long, wide = 5 + 10 * now[10], 2 + 7 * now[11]
    pen.polygon([(x, y - 4), (x - wide, y - 4 + long), (x + wide, y - 4 + long)], fill=skin - 40)
    mouth, lips, smile = y + 13 + 9 * now[13], 5 + 12 * now[12], rng.uniform(0, 2)
    pen.ellipse(
        (x - lips, mouth - 1 - abs(2 * now[14]) - smile, x + lips, mouth + 1 + abs(3 * now[14]) + smile), fill=90
    )
    turned = picture.rotate(rng.normal(0, 3), fillcolor=60).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    light = np.linspace(rng.uniform(0.6, 1.3), rng.uniform(0.6, 1.3), 96)
    pixels = np.asarray(turned, float) * light + rng.normal(0, 8, (96, 96))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(1)
    known, strangers, others = rng.random((60, TRAITS)), rng.random((60, TRAITS)), rng.random((40, TRAITS))
    albums = {f"person {number}": [draw(who, rng) for _ in range(TAKES)] for number, who in enumerate(known)}
    calls = [(draw(who, rng), name) for who, name in zip(known, albums, strict=True)]
    calls += [(draw(who, rng), "nobody") for who in strangers]
    labelled = [(draw(who, rng), number) for number, who in enumerate(others) for _ in range(TAKES)]
    pictures, labels = [picture for picture, _ in labelled], [number for _, number in labelled]

    encoder = trained(draw, TRAITS)
    verifier = Verifier.calibrated(encoder, pictures, labels, false_accept=FALSE_ACCEPT)
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Person(name=name, face=vector) for name, vector in verifier.enrol(albums).items())
        session.commit()
        right = 0
        for picture, name in calls:
            face = embed_query(encoder, picture)
            found = session.execute(within(Person.face, face, score=verifier.threshold).limit(1)).first()
            answer = found.Person.name if found else "nobody"
            right += answer == name
            if name in ("person 0", "person 1", "person 2"):
                print(f"{name} is taken for {answer}" + (f", cosine {found.score:.2f}" if found else ""))
        print(f"who has a cosine below {verifier.threshold:.2f} to everyone is nobody")

    verifier = Verifier.calibrated(PIXELS, pictures, labels, false_accept=FALSE_ACCEPT)
    enrolled, control = verifier.enrol(albums), 0
    for picture, name in calls:
        matches = verifier.identify(picture, enrolled)
        control += (matches[0].name if matches else "nobody") == name
    return [Figure("people named, strangers refused", right / len(calls), control / len(calls), "comparing pixels")]


if __name__ == "__main__":
    run(main)
