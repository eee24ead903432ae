"""Which Mercury is meant? Names in a text, tied to the entries of a knowledge base by what is said around them.

A recogniser of names says where a name stands; that is not enough where one name has several bearers. The entries of
that name are a filter, the sentence is the query.
"""

from __future__ import annotations

from common import Figure, database, run
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, embedding_column, nearest
from embeddb.encoders import SentenceTransformer

#: By name, its bearers, the best known first.
ENTITIES = {
    "Mercury": ["the planet nearest to the Sun", "a liquid metal, toxic", "the singer of the rock band Queen"],
    "Jaguar": ["a maker of luxury cars", "a big spotted cat of South American forests"],
    "Amazon": ["a company that sells things online", "a river in Brazil", "a woman warrior of Greek legend"],
    "Python": ["a programming language", "a large snake that squeezes its prey"],
    "Paris": ["the capital of France", "the prince of Troy who carried Helen off", "a town in Texas"],
    "Apple": ["a maker of phones and computers", "a fruit that grows on a tree"],
    "Bass": ["the lowest part in music, and a guitar", "a fish of lakes and rivers"],
    "Crane": ["a machine that lifts loads on building sites", "a tall grey bird with long legs"],
    "Turkey": ["a country between Europe and Asia", "a bird that is roasted for a feast"],
    "Java": ["an island of Indonesia", "a programming language that runs on a virtual machine"],
}
#: A sentence, a name in it, and which of its bearers is meant.
MENTIONS = [
    ("Mercury was measured by a probe that passed the Sun at close range.", "Mercury", 0),
    ("Do not touch the Mercury of a broken thermometer.", "Mercury", 1),
    ("Mercury filled the stadium with his voice for twenty minutes.", "Mercury", 2),
    ("The Jaguar stood in the garage with leather seats and a new engine.", "Jaguar", 0),
    ("A Jaguar dragged the caiman out of the water and up a tree.", "Jaguar", 1),
    ("My parcel from Amazon came a day late.", "Amazon", 0),
    ("The boat went up the Amazon for nine days, past dolphins and drowned trees.", "Amazon", 1),
    ("The Amazon drew her bow and rode at the heroes.", "Amazon", 2),
    ("We rewrote the script in Python and added tests.", "Python", 0),
    ("The Python had swallowed a goat and lay still.", "Python", 1),
    ("From the tower one sees all of Paris and the Seine.", "Paris", 0),
    ("Paris shot the arrow that killed Achilles.", "Paris", 1),
    ("Ranchers drove down from Dallas to the rodeo in Paris.", "Paris", 2),
    ("Apple showed a thinner laptop with a better camera.", "Apple", 0),
    ("She peeled an Apple and baked it with cinnamon.", "Apple", 1),
    ("The Bass was too loud for the singer.", "Bass", 0),
    ("He pulled a Bass of four pounds over the side of the boat.", "Bass", 1),
    ("A Crane swung the concrete up to the tenth floor.", "Crane", 0),
    ("At dawn a Crane danced in the marsh.", "Crane", 1),
    ("Elections in Turkey went to a second round.", "Turkey", 0),
    ("The Turkey needs four hours in the oven.", "Turkey", 1),
    ("A volcano erupted on Java and villages were cleared.", "Java", 0),
    ("The server is written in Java and needs more heap.", "Java", 1),
]


class Base(DeclarativeBase):
    pass


class Entity(Base):
    __tablename__ = "entities"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    sense: Mapped[int]  # 0 is the best known of the name
    description: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column(
        "name", "description", encoder=SentenceTransformer("all-MiniLM-L6-v2"), template="{name}, {description}"
    )


def main(url: str | None = None) -> list[Figure]:
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(
            Entity(name=name, sense=sense, description=description)
            for name, descriptions in ENTITIES.items()
            for sense, description in enumerate(descriptions)
        )
        session.commit()
        right = 0
        for sentence, name, sense in MENTIONS:
            meant = session.scalars(nearest(Entity.embedding, sentence).where(Entity.name == name).limit(1)).one()
            right += meant.sense == sense
            print(f"{'  ' if meant.sense == sense else '! '}{sentence}\n      {name}: {meant.description}")
    known = sum(sense == 0 for *_, sense in MENTIONS)
    return [Figure("names tied right", right / len(MENTIONS), known / len(MENTIONS), "always the best known")]


if __name__ == "__main__":
    run(main)
