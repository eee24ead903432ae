"""The demo's models. One text, three embeddings, to show each metric; the text is encoded once for all three."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from embeddb import Vector, embedding_column
from embeddb.encoders import SentenceTransformer

ENCODER = SentenceTransformer("all-MiniLM-L6-v2")


class Base(DeclarativeBase):
    """The demo's tables."""


class Passage(Base):
    """A short text on one subject."""

    __tablename__ = "passages"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    topic: Mapped[str] = mapped_column(index=True)
    year: Mapped[int]
    body: Mapped[str] = mapped_column(Text)
    embedding: Mapped[Vector | None] = embedding_column("title", "body", encoder=ENCODER)
    embedding_l2: Mapped[Vector | None] = embedding_column("title", "body", encoder=ENCODER, metric="l2")
    embedding_ip: Mapped[Vector | None] = embedding_column(
        "title", "body", encoder=ENCODER, metric="inner_product", storage="halfvec"
    )
