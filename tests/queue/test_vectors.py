"""Arrays of vectors as one parameter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embeddb.metrics import Storage
from embeddb.queue.vectors import VectorArray, dumper
from embeddb.vectors.wire import Vector, unpack
from tests.catalog.application import Database

halves = st.lists(st.floats(-60000, 60000, width=16), min_size=4, max_size=4)


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | halves, max_size=5))
def test_any_vectors_and_nulls_arrive_as_they_were(
    db: Database, storage: Storage, values: list[list[float] | None]
) -> None:
    sent: list[Vector | None] = [None if value is None else np.array(value, np.float32) for value in values]
    query = "SELECT oid::bigint, typarray::bigint FROM pg_type WHERE typname = %s"
    [(element, array)] = db.execute(query, [storage])
    cursor = db.cursor(binary=True)
    cursor.adapters.register_dumper(VectorArray, dumper(array))
    send = f"SELECT {storage}_send(v) FROM unnest(%s) WITH ORDINALITY AS u (v, place) ORDER BY place"
    received = cursor.execute(send, [VectorArray.of(sent, storage, element)]).fetchall()
    assert len(received) == len(sent)
    for (data,), vector in zip(received, sent, strict=True):
        assert data is None if vector is None else np.array_equal(unpack(data, storage), vector)
