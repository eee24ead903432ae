"""Embeddings for SQLAlchemy models, inside Postgres."""
