"""A chatbot that answers from documents, says from which, and says so where they hold no answer.

Retrieval by vectors and words together, then a prompt with numbered quotations for a language model. Any function from
a prompt to a text is one: ``ask(session, question, answer=model)``. Without, the answer is a quoted sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from common import Figure, database, run
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Vector, embedding_column, fulltext, hybrid, nearest, text_leg, vector_leg
from embeddb.demo.corpus import read_corpus
from embeddb.encoders import SentenceTransformer, embed_documents, embed_query

ENCODER = SentenceTransformer("all-MiniLM-L6-v2")
#: Below this cosine of the nearest document there is nothing to answer from: choose it by questions of your own.
ENOUGH = 0.35
PROMPT = """\
Answer the question from the quotations alone, with their numbers in brackets. If they do not hold the answer, say so.

{quotations}

Question: {question}
Answer:"""

#: Questions, and the document with the answer; hardly a word of them is in it.
QUESTIONS = {
    "Why did old sailors lose their teeth?": "Scurvy and lemons",
    "How can an aircraft stay up with no motor?": "Gliders and thermals",
    "Which plane needs no runway?": "Flying boats",
    "What makes dough get bigger?": "How bread rises",
    "Why does spicy food hurt?": "The heat of chillies",
    "How do insects tell each other where food is?": "Bees that dance",
    "Why did physicians begin to clean themselves?": "Handwashing",
    "How do plants feed themselves?": "Photosynthesis",
    "How are hospital patients kept from feeling surgery?": "Anaesthesia",
    "Which composer could not hear his own work?": "Beethoven's deafness",
    "How do I get a red drink out of the carpet?": "Removing a wine stain",
    "Why should I not change money for goods at the first price?": "Haggling in the souk",
    "Why is it dear to borrow for a long time?": "Compound interest",
    "How does my body adapt after a long flight?": "Jet lag",
    "When did the desert have rivers?": "The Sahara",
    "What kills bacteria less and less?": "Antibiotic resistance",
}
#: Nothing in the documents answers these.
UNANSWERABLE = (
    "Who won the election yesterday?",
    "What is my account's balance?",
    "asdf qwer zxcv?",
    "When do you close?",
)


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    embedding: Mapped[Vector | None] = embedding_column("title", "body", encoder=ENCODER)


class Answer(NamedTuple):
    """``sources``: the documents quoted, by their numbers from 1; ``prompt``: what a language model is given."""

    text: str
    sources: list[Document]
    prompt: str

    @property
    def cited(self) -> list[Document]:
        """The sources whose numbers the text names."""
        numbers = map(int, re.findall(r"\[(\d+)\]", self.text))
        return [self.sources[number - 1] for number in numbers if 1 <= number <= len(self.sources)]


def ask(session: Session, question: str, answer: Callable[[str], str] | None = None) -> Answer | None:
    """An answer with its sources, or None where no document is near enough to the question."""
    best = session.execute(nearest(Document.embedding, question, score=True).limit(1)).first()
    if best is None or best.score < ENOUGH:
        return None
    words = fulltext(Document.title, Document.body, config="english")
    found = hybrid(vector_leg(Document.embedding, question), text_leg(words, question, weight=0.3))
    sources = list(session.scalars(found.limit(3)))
    quotations = "\n".join(f"[{number}] {each.title}: {each.body}" for number, each in enumerate(sources, 1))
    prompt = PROMPT.format(quotations=quotations, question=question)
    return Answer(answer(prompt) if answer else extract(question, sources), sources, prompt)


def extract(question: str, sources: Sequence[Document]) -> str:
    """The sentence that is nearest to the question, with the number of its source."""
    sentences = [
        (sentence, number)
        for number, source in enumerate(sources, 1)
        for sentence in re.split(r"(?<=[.!?])\s+", source.body)
    ]
    vectors = embed_documents(ENCODER, [f"{sources[number - 1].title}: {sentence}" for sentence, number in sentences])
    sentence, number = sentences[int(np.argmax(vectors @ embed_query(ENCODER, question)))]
    return f"{sentence} [{number}]"


def main(url: str | None = None) -> list[Figure]:
    with database(Base, url) as sessions, sessions() as session:
        session.add_all(Document(title=text["title"], body=text["body"]) for text in read_corpus())
        session.commit()

        words = fulltext(Document.title, Document.body, config="english")
        right = quoted = first = among = 0
        for question, title in QUESTIONS.items():
            by_words = [each.title for each in session.scalars(hybrid(text_leg(words, question)).limit(3))]
            first += by_words[:1] == [title]
            among += title in by_words
            if answer := ask(session, question):
                print(f"{question}\n    {answer.text} {answer.cited[0].title}")
                right += answer.cited[0].title == title
                quoted += title in {source.title for source in answer.sources}
        for question in UNANSWERABLE:
            print(f"{question}\n    {'I found nothing about that.' if ask(session, question) is None else '?'}")
        refused = sum(ask(session, question) is None for question in UNANSWERABLE)
        unheard = sum(session.scalars(hybrid(text_leg(words, each)).limit(1)).first() is None for each in UNANSWERABLE)
        print("\nWhat a language model is given:\n\n" + (answer.prompt if answer else ""))
    asked, strange = len(QUESTIONS), len(UNANSWERABLE)
    return [
        Figure("answers from the right document", right / asked, first / asked, "first by words alone"),
        Figure("right document quoted", quoted / asked, among / asked, "quoted by words alone"),
        Figure("refused where there is no answer", refused / strange, unheard / strange, "no word in common"),
    ]


if __name__ == "__main__":
    run(main)
