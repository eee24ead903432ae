"""An application with ten tables of its own, before and after it adopts embeddb."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

from sqlalchemy import CheckConstraint, Enum, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from embeddb import HNSW, Hashing, IVFFlat, Vector, embedding_column

KEPT: list[type] = []


def shop(*, embedded: bool = True) -> type[DeclarativeBase]:
    """The models."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(String(200), unique=True)
        created_at: Mapped[datetime.datetime] = mapped_column(server_default=func.now())

    class Address(Base):
        __tablename__ = "addresses"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
        street: Mapped[str]
        user: Mapped[User] = relationship()

    class Category(Base):
        __tablename__ = "categories"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("categories.id"))
        name: Mapped[str] = mapped_column(Text, unique=True)
        if embedded:
            name_embedding: Mapped[Vector | None] = embedding_column(
                "name", encoder=Hashing(16), index=None, metric="l2", storage="halfvec"
            )

    class Product(Base):
        __tablename__ = "products"
        __table_args__ = (
            CheckConstraint("price >= 0", name="price_not_negative"),
            Index("products_name_lower", func.lower("name")),
        )
        id: Mapped[int] = mapped_column(primary_key=True)
        category_id: Mapped[int] = mapped_column(ForeignKey(Category.id))
        name: Mapped[str] = mapped_column(String(100))
        description: Mapped[str] = mapped_column(Text, server_default="")
        price: Mapped[decimal.Decimal]
        attributes: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
        if embedded:
            embedding: Mapped[Vector | None] = embedding_column(
                "name", "description", encoder=Hashing(16), index=HNSW(m=8), template="{name}: {description}"
            )

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
        state: Mapped[str] = mapped_column(Enum("open", "paid", native_enum=False))

    class OrderLine(Base):
        __tablename__ = "order_lines"
        order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)
        product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
        quantity: Mapped[int] = mapped_column(server_default="1")

    class Review(Base):
        __tablename__ = "reviews"
        __table_args__ = (UniqueConstraint("user_id", "product_id"),)
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
        product_id: Mapped[int] = mapped_column(ForeignKey(Product.id))
        body: Mapped[str] = mapped_column(Text)
        if embedded:
            embedding: Mapped[Vector | None] = embedding_column(
                "body", encoder=Hashing(16), mode="queued", on_update="clear", index=IVFFlat(lists=2, cast="halfvec")
            )

    class Tag(Base):
        __tablename__ = "tags"
        name: Mapped[str] = mapped_column(primary_key=True)

    class ProductTag(Base):
        __tablename__ = "product_tags"
        product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
        tag: Mapped[str] = mapped_column(ForeignKey(Tag.name), primary_key=True)

    class Setting(Base):
        __tablename__ = "settings"
        key: Mapped[str] = mapped_column(primary_key=True)
        value: Mapped[dict[str, Any]] = mapped_column(JSONB)

    # A registry holds its classes weakly.
    KEPT.extend(mapper.class_ for mapper in Base.registry.mappers)
    return Base
