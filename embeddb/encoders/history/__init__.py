"""Histories: what users did, and users as vectors."""

from __future__ import annotations

from embeddb.encoders.history.als import ALS
from embeddb.encoders.history.events import Event, histories
from embeddb.encoders.history.gru4rec import GRU4Rec
from embeddb.encoders.history.item_vectors import ItemVectors
from embeddb.encoders.history.pooling import Decay, Pool, pool

__all__ = ["ALS", "Decay", "Event", "GRU4Rec", "ItemVectors", "Pool", "histories", "pool"]
