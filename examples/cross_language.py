"""A question in English finds texts in German, though no text was ever translated.

Words of either language are learnt from its own texts. Both come to nearly the same shape, since both speak of one
world, and a turn that fits a small dictionary lays one on the other: orthogonal Procrustes (Conneau et al. 2018,
https://arxiv.org/abs/1710.04087). Then all other words are translated too, and a text's vector is of no language.

The world here is invented, and the texts are drawn from it. Where a model hub can be reached, take a model that knows
fifty languages and whole sentences: ``main(encoder=SentenceTransformer("paraphrase-multilingual-MiniLM-L12-v2"))``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import Figure, database, run
from numpy.typing import NDArray
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, WordVectors, embedding_column, nearest
from embeddb.encoders import Encoder
from embeddb.train.words import WordRecipe, adapt, convert, train_word2vec


class Meaning(NamedTuple):
    """A word in both languages."""

    english: str
    german: str


#: By subject, what can be meant: a line in English, the same in German.
WORLD = """
ship sailor harbour wave captain anchor island rope beach
Schiff Matrose Hafen Welle Kapitän Anker Insel Seil Strand
bread oven cook knife soup salt onion plate flour
Brot Ofen Koch Messer Suppe Salz Zwiebel Teller Mehl
doctor patient fever pill nurse wound blood cough bone
Arzt Kranker Fieber Tablette Pflegerin Wunde Blut Husten Knochen
judge law thief prison lawyer witness crime guilt police
Richter Gesetz Dieb Gefängnis Anwalt Zeuge Verbrechen Schuld Polizei
forest deer hunter tree leaf mushroom owl moss path
Wald Hirsch Jäger Baum Blatt Pilz Eule Moos Pfad
school teacher book pupil pencil lesson exam chalk desk
Schule Lehrer Buch Schüler Bleistift Stunde Prüfung Kreide Pult
train ticket station traveller suitcase bridge rail delay tunnel
Zug Fahrkarte Bahnhof Reisender Koffer Brücke Schiene Verspätung Stollen
farmer cow field plough barn milk wheat horse hay
Bauer Kuh Acker Pflug Scheune Milch Weizen Pferd Heu
king castle crown sword knight throne war queen tower
König Schloss Krone Schwert Ritter Thron Krieg Königin Turm
painter picture colour brush museum frame light artist shadow
Maler Bild Farbe Pinsel Sammlung Rahmen Licht Künstler Schatten
"""
LINES = WORLD.split("\n")[1:-1]
SUBJECTS = [
    [Meaning(*pair) for pair in zip(english.split(), german.split(), strict=True)]
    for english, german in zip(LINES[::2], LINES[1::2], strict=True)
]
MEANINGS = [meaning for subject in SUBJECTS for meaning in subject]
#: The dictionary: four words of nine. The others are to be found.
KNOWN = [meaning for subject in SUBJECTS for meaning in subject[:4]]
UNKNOWN = [meaning for subject in SUBJECTS for meaning in subject[4:]]
FILLERS = Meaning("the and with near of", "der und mit neben von")
DIM = 32


class World:
    """What goes with what: a thought wanders from meaning to meaning, mostly within a subject."""

    def __init__(self, rng: np.random.Generator) -> None:
        each = len(SUBJECTS[0])
        ties = 0.01 * rng.exponential(1, (len(MEANINGS), len(MEANINGS))) ** 3
        for start in range(0, len(MEANINGS), each):
            ties[start : start + each, start : start + each] = rng.exponential(1, (each, each)) ** 2
        np.fill_diagonal(ties, 0)
        self.ties = ties / ties.sum(1, keepdims=True)

    def thought(self, rng: np.random.Generator, length: int = 6) -> list[Meaning]:
        places = [int(rng.integers(len(MEANINGS)))]
        while len(places) < length:
            places.append(int(rng.choice(len(MEANINGS), p=self.ties[places[-1]])))
        return [MEANINGS[place] for place in places]


def said(thought: list[Meaning], language: int, rng: np.random.Generator) -> str:
    """In words: ``language`` 0 is English, 1 is German."""
    fillers = FILLERS[language].split()
    return " ".join(
        f"{rng.choice(fillers)} {each[language]}" if rng.random() < 0.6 else each[language] for each in thought
    )


def vectors(encoder: WordVectors, words: list[str]) -> NDArray[np.float64]:
    """Of length 1: (words, dim)."""
    rows = np.array([encoder.vector(word) for word in words], float)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def turn(english: WordVectors, german: WordVectors) -> NDArray[np.float64]:
    """The rotation that brings the German words of the dictionary nearest to the English ones."""
    ours = vectors(english, [known.english for known in KNOWN])
    theirs = vectors(german, [known.german for known in KNOWN])
    left, _, right = np.linalg.svd(theirs.T @ ours)
    return np.asarray(left @ right)


def joined(english: WordVectors, german: WordVectors, rotation: NDArray[np.float64], folder: Path) -> WordVectors:
    """One model of the words of both languages, through the text format of GloVe."""
    folder.mkdir()
    rows = {word: vectors(english, [word])[0] for word in english.loaded.words}
    rows |= {word: vectors(german, [word])[0] @ rotation for word in german.loaded.words}
    file = folder / "both.txt"
    file.write_text("".join(f"{word} {' '.join(f'{x:.6f}' for x in row)}\n" for word, row in rows.items()))
    return convert(file, folder / "both")


def main(url: str | None = None, encoder: Encoder | None = None) -> list[Figure]:
    rng = np.random.default_rng(0)
    world = World(rng)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [[said(world.thought(rng), language, rng) for _ in range(8000)] for language in (0, 1)]
        recipe = WordRecipe(dim=DIM, window=2, epochs=5, sample=0)
        english, german = (train_word2vec(texts[n], folder / str(n), recipe) for n in (0, 1))
        both = joined(english, german, turn(english, german), folder / "aligned")
        apart = joined(english, german, np.eye(DIM), folder / "apart")
        some = texts[0][:2000] + texts[1][:2000]

        class Base(DeclarativeBase):
            pass

        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            body: Mapped[str]
            embedding: Mapped[Vector | None] = embedding_column(
                "body", encoder=encoder or adapt(both.model, some, folder / "fitted")
            )
            unaligned: Mapped[Vector | None] = embedding_column(
                "body", encoder=adapt(apart.model, some, folder / "unaligned")
            )

        thoughts = [world.thought(rng) for _ in range(200)]
        with database(Base, url) as sessions, sessions() as session:
            notes = [Note(body=said(thought, 1, rng)) for thought in thoughts]
            session.add_all(notes)
            session.commit()
            hits = misses = 0
            for note, thought in zip(notes[:60], thoughts, strict=False):
                question = said(thought[1:5][::-1], 0, rng)
                found = session.scalars(nearest(Note.embedding, question).limit(3)).all()
                hits += note in found
                misses += note in session.scalars(nearest(Note.unaligned, question).limit(3)).all()
                if note in notes[:3]:
                    print(f"{question}\n    {found[0].body}")

        german_words = {meaning.german.casefold() for meaning in MEANINGS}
        right = {both: 0, apart: 0}
        for meaning in UNKNOWN:
            for model in right:
                near = model.nearest_words(meaning.english, limit=len(MEANINGS))
                right[model] += (
                    next(each.word for each in near if each.word in german_words) == meaning.german.casefold()
                )
    return [
        Figure("words translated that no dictionary had", right[both] / 50, right[apart] / 50, "the same, not aligned"),
        Figure("German text among the first three", hits / 60, misses / 60, "the same, not aligned"),
    ]


if __name__ == "__main__":
    run(main)
