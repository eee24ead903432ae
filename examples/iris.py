"""Irises: 2,048 bits each, some hidden by lids and lashes, all turned when the head was tilted.

Two codes are compared by the share of differing bits that neither mask hides, at the best of several rotations (Daugman
2004, "How Iris Recognition Works"). No index knows that distance: the plain Hamming distance proposes candidates for
each rotation, and one expression of SQL orders them. Codes are drawn at random here; real ones come from a camera's SDK
or, for example, from open-iris.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Figure, database, run
from numpy.typing import NDArray
from sqlalchemy import Select, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from embeddb import bit_column, for_each, nearest
from embeddb.vectors.bits import Bits, as_bits

RINGS, ANGLES = 8, 256
BITS = RINGS * ANGLES
TILT = 5
TURNS = range(-2 * TILT, 2 * TILT + 1)  # each of two pictures was tilted
#: Accept below this share: of two eyes about half of the bits differ, of one eye's two pictures far fewer.
SAME = 0.38
Code = NDArray[np.bool_]


class Base(DeclarativeBase):
    pass


class Iris(Base):
    __tablename__ = "irises"
    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[str]
    code: Mapped[Bits] = bit_column(BITS, metric="hamming")
    mask: Mapped[Bits] = bit_column(BITS, index=None)  # ones where the code can be relied on


def iris(rng: np.random.Generator) -> Code:
    """An eye: rings of bits, in which neighbours tend to agree."""
    waves = rng.standard_normal((RINGS, ANGLES))
    spectrum = np.fft.rfft(waves) * (np.arange(ANGLES // 2 + 1) < 40)
    return np.asarray(np.fft.irfft(spectrum, ANGLES) > 0)


def picture(eye: Code, rng: np.random.Generator) -> tuple[Code, Code]:
    """(code, mask) of a picture of it: a lid over a part, the head tilted, one bit in eight wrong."""
    mask = np.ones_like(eye)
    lid = int(rng.integers(30, 90))
    mask[RINGS // 2 :, :lid] = False
    code = np.where(mask, eye ^ (rng.random(eye.shape) < 0.125), rng.random(eye.shape) < 0.5)
    turn = int(rng.integers(-TILT, TILT + 1))
    return np.roll(code, turn, axis=1), np.roll(mask, turn, axis=1)


def identify(code: Code, mask: Code) -> Select[Any]:
    """Select (person, share of differing bits), the nearest first."""
    turned = [(np.roll(code, turn, axis=1).ravel(), np.roll(mask, turn, axis=1).ravel()) for turn in TURNS]
    found = for_each(Iris.code, [each for each, _ in turned], k=5).subquery()
    near = aliased(Iris, found)
    best: Any = func.least(*(share(near, *each) for each in turned))
    return select(near.person, best).distinct().order_by(best)


def share(row: type[Iris], code: Code, mask: Code) -> Any:
    """Of the bits that neither mask hides, the share that differs."""
    both = row.mask.op("&")(as_bits(mask, BITS))
    differing = row.code.op("#")(as_bits(code, BITS)).op("&")(both)
    return func.bit_count(differing) / func.nullif(func.bit_count(both), 0.0)


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    eyes = {f"person {number}": iris(rng) for number in range(400)}
    strangers = [iris(rng) for _ in range(20)]
    guests = list(eyes)[::20]
    with database(Base, url) as sessions, sessions() as session:
        for person, eye in eyes.items():
            code, mask = picture(eye, rng)
            session.add(Iris(person=person, code=code.ravel(), mask=mask.ravel()))
        session.commit()

        known = plain = refused = 0
        for person in guests:
            code, mask = picture(eyes[person], rng)
            name, differing = session.execute(identify(code, mask).limit(1)).one()
            known += name == person and differing < SAME
            plain += session.scalars(nearest(Iris.code, code.ravel()).limit(1)).one().person == person
            if person in guests[:4]:
                print(f"{person} at the door: {name}, {differing:.0%} of the bits differ")
        for eye in strangers:
            _, differing = session.execute(identify(*picture(eye, rng)).limit(1)).one()
            refused += differing >= SAME
        print(f"a stranger at the door: nobody, {differing:.0%} of the bits differ from the nearest")
    return [
        Figure("people known again", known / len(guests), plain / len(guests), "no rotation, no mask"),
        Figure("strangers refused", refused / len(strangers), 0, "the nearest is let in"),
    ]


if __name__ == "__main__":
    run(main)
