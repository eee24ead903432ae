from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddb.encoders.history import Decay, Event, Pool, histories, pool
from embeddb.encoders.history.events import read_event
from embeddb.errors import SourceError

steps = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e6), st.floats(0.1, 5)), min_size=1, max_size=60)
ITEMS = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)


def events_of(walk: list[tuple[int, float, float]]) -> list[tuple[Any, float, float]]:
    """Items at the times to which the gaps add up."""
    times = np.cumsum([gap for _, gap, _ in walk])
    return [(ITEMS[item], float(at), weight) for (item, _, weight), at in zip(walk, times, strict=True)]


@given(steps, st.floats(1e3, 1e7))
def test_the_recursion_is_the_sum_in_which_every_event_has_decayed_since(
    walk: list[tuple[int, float, float]], half_life: float
) -> None:
    events = events_of(walk)
    state = pool(events, 8, Decay(half_life))
    last = events[-1][1]
    left = [weight * 0.5 ** ((last - at) / half_life) for _, at, weight in events]
    expected = sum(factor * item.astype(float) for factor, (item, _, _) in zip(left, events, strict=True))
    scale = sum(factor * float(np.linalg.norm(item)) for factor, (item, _, _) in zip(left, events, strict=True))
    assert np.abs(state.vector - expected).max() <= 1e-6 * scale
    assert state.weight == pytest.approx(sum(left), rel=1e-5)


@given(steps, st.integers(0, 60), st.sampled_from([None, Decay(5e4), Decay(3, "events")]))
def test_adding_later_events_is_the_same_as_pooling_all_anew(
    walk: list[tuple[int, float, float]], cut: int, decay: Decay | None
) -> None:
    events = events_of(walk)
    state = pool(events[:cut], 8, decay)
    for event in events[cut:]:
        state.add(*event)
    rebuilt = pool(events, 8, decay)
    assert state.vector.tobytes() == rebuilt.vector.tobytes()
    assert state.vector.dtype == np.float32
    assert (state.weight, state.at) == (rebuilt.weight, rebuilt.at)


def test_without_decay_it_is_the_weighted_sum_and_with_it_the_past_halves() -> None:
    one, other = ITEMS[0], ITEMS[1]
    assert pool([(one, 0, 2), (other, 9, 3)], 8).vector == pytest.approx(2 * one + 3 * other)
    assert pool([(one, 0, 1), (other, 60, 1)], 8, Decay(60)).vector == pytest.approx(0.5 * one + other)
    assert pool([(one, 0, 1), (one, 7, 1), (other, 7, 1)], 8, Decay(1, "events")).vector == pytest.approx(
        0.75 * one + other
    )


def test_a_late_event_is_refused_and_one_at_the_same_time_is_not() -> None:
    state = Pool(np.zeros(8, np.float32), Decay(60))
    state.add(ITEMS[0], 100.0)
    state.add(ITEMS[1], 100.0)
    with pytest.raises(SourceError, match="late"):
        state.add(ITEMS[2], 99.0)


@pytest.mark.parametrize("half_life", [0, -1, float("nan")])
def test_a_half_life_is_positive(half_life: float) -> None:
    with pytest.raises(SourceError, match="half-life"):
        Decay(half_life)


def test_rows_become_histories_in_order_of_time() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    rows = [
        ("ann", 3, noon + timedelta(hours=1), 2),
        ("bob", "x"),
        ("ann", 1, noon),
        ("ann", 2, noon.astimezone(timezone(timedelta(hours=9)))),
        ("ann", 0, noon.replace(tzinfo=None) - timedelta(seconds=1)),
    ]
    found = histories(rows)
    assert [event.item for event in found["ann"]] == [0, 1, 2, 3]
    assert found["ann"][3] == Event(3, noon.timestamp() + 3600, 2.0)
    assert found["bob"] == [Event("x", 0.0, 1.0)]


@pytest.mark.parametrize(
    "event",
    [
        None,
        1.5,
        True,
        (b"x",),
        ("a", "soon"),
        ("a", 0, "much"),
        ("a", float("nan")),
        ("a", 0, float("inf")),
        ("a", 0, 1, 2),
    ],
)
def test_what_is_no_event_is_refused_by_position(event: object) -> None:
    with pytest.raises(SourceError, match="event 7"):
        read_event(event, 7)
