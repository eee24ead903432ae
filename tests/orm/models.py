"""Models that the ORM's tests share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Vector, embedding_column
from embeddb.encoders import Hashing, embed_documents
from embeddb.sources.text import compose

HASHING = Hashing(dim=32)


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str | None]
    year: Mapped[int] = mapped_column(default=2000)
    embedding: Mapped[Vector | None] = embedding_column("title", "body", encoder=HASHING)


class Tag(Base):
    """Text keys, a default among the sources, a template, half precision, and two embeddings of one text."""

    __tablename__ = "tags"
    shelf: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(default="plain")
    halves: Mapped[Vector | None] = embedding_column(
        "label", "note", encoder=HASHING, template="{label}: {note}", metric="l2", storage="halfvec"
    )
    again: Mapped[Vector | None] = embedding_column(
        "label", "note", encoder=HASHING, template="{label}: {note}", metric="inner_product", index=None
    )


def violations(session: Session, models: Iterable[type[Base]] = (Article, Tag)) -> list[str]:
    """Rows whose vector is not the embedding of their sources, as the database has them."""
    wrong = []
    for model in models:
        for declaration in (d for c in model.__table__.columns if (d := c.info.get("embeddb")) is not None):
            spec = declaration.spec
            columns = [*model.__table__.primary_key, *declaration.sources, declaration.column]
            for row in session.connection().execute(select(*columns)):
                sources = row[-1 - len(spec.sources) : -1]
                text = compose(sources, spec.sources, spec.template)
                vector = row[-1]
                if text is None or vector is None:
                    right = text is None and vector is None
                else:
                    close = 1e-3 if spec.storage == "halfvec" else 1e-6
                    right = np.allclose(vector, embed_documents(HASHING, [text])[0], atol=close)
                if not right:
                    wrong.append(f"{spec.name} {row[:-1]}: {vector}")
    return wrong


__all__ = ["HASHING", "Article", "Base", "Tag", "violations"]
