"""What an embedding is worth: measured on its own rows, in the database that it lives in."""

from __future__ import annotations
