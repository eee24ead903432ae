"""Who is speaking? A voice among those who are enrolled, or one that the bank does not know.

``embeddb train speaker`` trains from a folder or a table; this is the same in Python, on invented voices. For people
take ``XVector("microsoft/wavlm-base-plus-sv")``, or train further on recordings of your own.
"""

from __future__ import annotations

import io
import tempfile

import numpy as np
import soundfile
from common import Figure, database, run
from sqlalchemy import LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from voices import babble, invent, say, spectrum

from embeddb import Vector, Waveform, classify, embedding_column
from embeddb.encoders import embed_documents
from embeddb.encoders.speaker import Shape
from embeddb.train.speaker import SpeakerRecipe, train_speaker
from embeddb.verification import equal_error_rate, pair_scores

RECIPE = SpeakerRecipe(
    shape=Shape(channels=(8, 16, 32), blocks=1, dim=64),
    softmax_steps=150,
    triplet_steps=0,
    batch=32,
    crop=(0.4, 0.7),
    held_out=0,
)
PEOPLE, TAKES = 20, 6


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    heard = [(number, invent(rng)) for number in range(80)]
    training = [(say(babble(rng), voice, rng), f"speaker {number}") for number, voice in heard for _ in range(4)]
    customers = {f"customer {number}": invent(rng) for number in range(PEOPLE)}
    calls = [(say(babble(rng), voice, rng), name) for name, voice in customers.items() for _ in range(TAKES)]

    with tempfile.TemporaryDirectory() as folder:
        encoder = train_speaker(training, folder, RECIPE)

        class Base(DeclarativeBase):
            pass

        class Recording(Base):
            __tablename__ = "recordings"
            id: Mapped[int] = mapped_column(primary_key=True)
            customer: Mapped[str]
            file: Mapped[bytes] = mapped_column(LargeBinary)
            voice: Mapped[Vector | None] = embedding_column("file", encoder=encoder, mode="inline")

        with database(Base, url) as sessions, sessions() as session:
            for number, (sound, name) in enumerate(calls):
                if number % TAKES:  # the first call of each is kept to ask with
                    session.add(Recording(customer=name, file=wav(sound)))
            session.commit()
            right = 0
            for sound, name in calls[::TAKES]:
                best = session.execute(classify(Recording.voice, sound, label=Recording.customer, k=5)).first()
                assert best is not None
                right += best.label == name
                if name in ("customer 0", "customer 1", "customer 2"):
                    print(f"{name} sounds like {best.label} ({best.share:.0%} of the votes)")

        sounds, names = [sound for sound, _ in calls], [name for _, name in calls]
        spectra = np.stack([spectrum(sound) for sound in sounds])
        spectra = (spectra - spectra.mean(0)) / spectra.std(0)
        away = np.square(spectra[::TAKES, None] - spectra).sum(2)
        away[:, ::TAKES] = np.inf
        control = np.mean([names[place] == names[::TAKES][row] for row, place in enumerate(away.argmin(1))])
        error = equal_error_rate(*pair_scores(embed_documents(encoder, sounds), names))
        by_spectrum = equal_error_rate(*pair_scores(spectra, names))
        print(f"the same person above a cosine of {error.threshold:.2f}: wrong in {error.rate:.0%} of pairs either way")
    return [
        Figure("pairs of calls told apart (1 - EER)", 1 - error.rate, 1 - by_spectrum.rate, "mean spectra"),
        Figure("callers named", right / PEOPLE, float(control), "mean spectra"),
    ]


def wav(sound: Waveform) -> bytes:
    """A file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, sound.samples, sound.rate, format="WAV")
    return file.getvalue()


if __name__ == "__main__":
    run(main)
