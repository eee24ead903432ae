"""Encoders in a database by the name of an embedding that has them."""

from __future__ import annotations

from sqlalchemy import Connection, text

from embeddb.encoders import SentenceTransformer, WordVectors, from_config
from embeddb.errors import EncoderError
from embeddb.insql.distill import subject
from embeddb.insql.fast import Fast
from embeddb.insql.registered import forget_encoder
from embeddb.insql.static import install_words
from embeddb.insql.transformer import Installed, install_transformer


def has_sql(connection: Connection, embedding: str) -> bool:
    """Whether the encoder of a registered embedding is of a kind that can be installed, if its model can."""
    return subject(connection, embedding).config["type"] in (SentenceTransformer.type, WordVectors.type)


def install_encoder(
    connection: Connection, embedding: str, *, half: bool = False, name: str | None = None
) -> Installed | Fast:
    """Put the encoder of a registered embedding into the database: a transformer's weights, or word vectors.

    In the caller's transaction. Every embedding with the same encoder has it then. ``half``: a transformer's weights in
    half precision. ``name``: what to call it, by default as the model.

    Raises EncoderError where the encoder has no SQL, CatalogError where there is no such embedding.
    """
    encoder = from_config(subject(connection, embedding).config)
    if isinstance(encoder, SentenceTransformer):
        return install_transformer(connection, encoder, half=half, name=name)
    if not isinstance(encoder, WordVectors):
        raise EncoderError(f"{encoder!r} has no SQL of its own: distil it (--fast, or embeddb distill {embedding})")
    if half:
        raise EncoderError("word vectors are kept in single precision, equal to the encoder: leave --halfvec out")
    return install_words(connection, encoder, name=name)


def remove_encoder(connection: Connection, embedding: str) -> bool:
    """Take the encoder of a registered embedding out of the database, if it is there: for all that have it.

    What was distilled from it stays. Returns whether there was one. Raises CatalogError where there is no such
    embedding.
    """
    number = subject(connection, embedding).encoder
    gone = [
        connection.execute(text(statement), {"encoder": number}).rowcount
        for statement in (
            "DELETE FROM embeddb.transformer WHERE encoder = :encoder",
            "DELETE FROM embeddb.fast_encoder WHERE encoder = :encoder AND embedding IS NULL",
        )
    ]
    forget_encoder(connection, number)
    return any(gone)
