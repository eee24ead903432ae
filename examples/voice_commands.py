"""What was said, whoever says it: the five nearest of the commands that are stored vote.

The same network as for speakers, taught with words for labels. A new command needs a few recordings, as rows; the
network is not trained again.
"""

from __future__ import annotations

import tempfile

import numpy as np
from common import Figure, database, run
from speaker_recognition import wav
from sqlalchemy import LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from voices import Voice, invent, say, spectrum

from embeddb import Vector, Waveform, classify, embedding_column
from embeddb.encoders.speaker import Shape
from embeddb.train.speaker import SpeakerRecipe, train_speaker

#: As they sound to the synthesiser of these examples.
COMMANDS = {
    "start": "start",
    "stop": "stop",
    "louder": "lautr",
    "quieter": "kuaitr",
    "forward": "foruart",
    "back": "pak",
    "open": "opn",
    "close": "klous",
    "save": "seif",
    "delete": "tilit",
}
#: Stored, but never among what the network was taught.
NEW = {"pause": "poos", "mute": "miut"}
RECIPE = SpeakerRecipe(
    shape=Shape(channels=(8, 16, 32), blocks=1, dim=64),
    softmax_steps=120,
    triplet_steps=0,
    batch=48,
    crop=(0.4, 0.6),
    speeds=(0.85, 1.0, 1.15),
    labels="words",
    held_out=0,
)


def spoken(voices: list[Voice], words: dict[str, str], rng: np.random.Generator) -> list[tuple[Waveform, str]]:
    """(sound, command): every command by every voice."""
    return [(say(sounds, voice, rng), word) for voice in voices for word, sounds in words.items()]


def main(url: str | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    taught = spoken([invent(rng) for _ in range(40)], COMMANDS, rng)
    stored = spoken([invent(rng) for _ in range(12)], COMMANDS | NEW, rng)
    asked = spoken([invent(rng) for _ in range(10)], COMMANDS | NEW, rng)  # by voices that nobody has heard

    with tempfile.TemporaryDirectory() as folder:
        encoder = train_speaker(taught, folder, RECIPE)

        class Base(DeclarativeBase):
            pass

        class Take(Base):
            __tablename__ = "takes"
            id: Mapped[int] = mapped_column(primary_key=True)
            command: Mapped[str]
            file: Mapped[bytes] = mapped_column(LargeBinary)
            embedding: Mapped[Vector | None] = embedding_column("file", encoder=encoder, mode="inline")

        with database(Base, url) as sessions, sessions() as session:
            session.add_all(Take(command=command, file=wav(sound)) for sound, command in stored)
            session.commit()
            understood: list[str] = []
            for sound, command in asked:
                votes = session.execute(classify(Take.embedding, sound, label=Take.command, k=5)).first()
                assert votes is not None
                understood.append(votes.label)
                if len(understood) <= len(COMMANDS | NEW):
                    print(f"{command}: {votes.label} ({votes.share:.0%} of the votes)")

    spectra = np.stack([spectrum(sound) for sound, _ in stored + asked])
    spectra = (spectra - spectra.mean(0)) / spectra.std(0)
    away = np.square(spectra[len(stored) :, None] - spectra[: len(stored)]).sum(2)
    heard = [stored[place][1] for place in away.argmin(1)]

    def right(answers: list[str], words: dict[str, str]) -> float:
        pairs = [(answer, word) for answer, (_, word) in zip(answers, asked, strict=True) if word in words]
        return sum(answer == word for answer, word in pairs) / len(pairs)

    return [
        Figure("commands understood", right(understood, COMMANDS), right(heard, COMMANDS), "mean spectra"),
        Figure("new commands understood", right(understood, NEW), right(heard, NEW), "mean spectra"),
    ]


if __name__ == "__main__":
    run(main)
