"""What is chosen of candidates, by made-up predictions; and how recall is carried from few rows to many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table

from embeddb import HNSW, IVFFlat
from embeddb.insight.building import memory_for, workers_for
from embeddb.insight.calibration import typical
from embeddb.insight.candidates import Candidate, candidates, index_source, lists_for
from embeddb.insight.choice import Prediction, Weighing, choose
from embeddb.insight.curve import Curve, growth_of
from embeddb.insight.reasons import duration, size
from embeddb.insight.reductions import ranks, signs
from embeddb.insight.sample import Subject
from embeddb.insight.server import Server
from embeddb.insight.sizes import index_bytes
from tests.insight.vectors import gaussian

MILLION = 1_000_000
PLAIN, HALF = Candidate("vector", HNSW()), Candidate("vector", HNSW(cast="halfvec"))
DEEP, COLUMN = Candidate("vector", HNSW(m=24, ef_construction=200)), Candidate("halfvec", HNSW())
BITS, LISTS = Candidate("vector", HNSW(cast="binary")), Candidate("vector", IVFFlat(lists=1000))
ALL = {"plain": PLAIN, "half": HALF, "deep": DEEP, "column": COLUMN, "bits": BITS, "lists": LISTS}
GOOD = {"plain": 0.97, "half": 0.97, "deep": 0.99, "column": 0.97, "bits": 0.96, "lists": 0.98}
ROOMY = Server(cache=64 * 2**30, building=64 * 2**20)
_TABLE = Table("t", MetaData(), Column("id", Integer), Column("e", Integer))
SUBJECT = Subject("t.e", _TABLE, _TABLE.c.e, 384, "vector", "cosine", None, None)


def chosen(
    recalls: Mapping[str, float] = GOOD,
    recall: float = 0.95,
    *,
    server: Server = ROOMY,
    subject: Subject = SUBJECT,
    exact: float = 700.0,
    most: float = 1.0,
    measured: bool = True,
) -> Candidate | None:
    predictions = [
        Prediction(
            candidate=one,
            column=one.column(MILLION, 384),
            index=one.size(MILLION, 384),
            graph=one.graph(MILLION, 384),
            seconds=one.work(MILLION, 384) * 1e-6,
            recall=found,
            most=max(found, most),
            building=0,
        )
        for name, found in recalls.items()
        if (one := ALL[name])
    ]
    best = choose(Weighing(subject, server, MILLION, recall, exact, predictions, measured))
    return None if best is None else best.candidate


def test_an_exact_search_that_is_quick_needs_no_index() -> None:
    assert chosen(exact=10) is None
    assert chosen(exact=11) is not None
    assert chosen(exact=10, subject=replace(SUBJECT, index=HNSW())) == PLAIN  # the table may grow


def test_the_smallest_that_holds_the_vectors_and_reaches_the_recall() -> None:
    assert chosen() == HALF
    assert chosen(recall=0.975) == HALF  # a hundredth is none
    assert chosen(recall=0.99) == DEEP
    assert chosen(recall=0.999) == HALF  # none does as it is, and with more effort all do
    assert chosen(recall=0.999, most=0.98) == DEEP  # the nearest there is
    assert chosen(recall=0.99, measured=False) == HALF  # what was not measured is no reason for a dearer build


def test_memory_decides_between_vectors_and_what_is_ranked_once_more() -> None:
    small, smaller = replace(ROOMY, cache=3 * 2**30), replace(ROOMY, cache=2 * 2**30)
    assert chosen(server=replace(ROOMY, cache=6 * 2**30)) == HALF
    assert chosen(server=small) == BITS
    assert chosen({name: recall for name, recall in GOOD.items() if name != "bits"}, server=smaller) == COLUMN
    assert chosen({**GOOD, "bits": 0.5}, 0.985, server=small, most=0.9) == DEEP


def test_lists_only_where_no_graph_will_do_and_rows_stay() -> None:
    lists = {"plain": 0.8, "lists": 0.97}
    assert chosen(lists) == PLAIN
    assert chosen(lists, most=0.9) == LISTS
    assert chosen(lists, most=0.9, server=replace(ROOMY, changed=MILLION // 2)) == PLAIN


def test_what_is_declared_stays_where_little_is_won() -> None:
    halves = replace(SUBJECT, storage="halfvec", index=HNSW())
    assert chosen({"column": 0.97, "half": 0.97}, subject=halves) == COLUMN
    deep = replace(SUBJECT, index=HNSW(m=24, ef_construction=200))
    assert chosen({"plain": 0.97, "deep": 0.99}, subject=deep) == DEEP
    assert chosen({"half": 0.97, "deep": 0.99}, subject=deep) == HALF


def test_candidates_are_what_pgvector_can_build() -> None:
    def declared(dim: int, **about: object) -> list[str]:
        subject = replace(SUBJECT, dim=dim, **about)  # type: ignore[arg-type]
        return [one.declaration for one in candidates(subject, MILLION)]

    assert not any("binary" in one or "prefix" in one for one in declared(64))
    wide = declared(3072, metric="l1", index=HNSW(cast="binary"))
    assert wide[0] == 'index=HNSW(cast="binary")'
    assert 'storage="halfvec", index=HNSW()' in wide
    assert "index=HNSW(prefix=1536)" in wide
    assert "index=HNSW()" not in wide  # more than 2,000 dimensions
    assert not any("IVFFlat" in one for one in wide)  # which has no l1
    assert len(set(wide)) == len(wide)
    assert set(declared(12_000)) == {
        'index=HNSW(cast="binary")',
        'index=HNSW(cast="halfvec", prefix=3000)',
    }
    assert (lists_for(500), lists_for(200_000), lists_for(4_000_000)) == (10, 200, 2000)
    assert index_source(IVFFlat(lists=7, cast="binary")) == 'IVFFlat(lists=7, cast="binary")'


def test_memory_and_workers_of_a_build() -> None:
    server = replace(ROOMY, workers=4)
    building = memory_for(PLAIN, MILLION, 384, server)
    assert 1.05 < building / PLAIN.graph(MILLION, 384) < 1.15
    assert workers_for(PLAIN, MILLION, 384, server, building) == 4
    assert workers_for(PLAIN, MILLION, 384, server, 64 * 2**20) == 1  # Postgres wants 32 MB for each
    assert workers_for(PLAIN, 3000, 384, server, building) == 0  # of a small table
    assert memory_for(PLAIN, 100 * MILLION, 384, server) == 32 * 2**30
    assert memory_for(LISTS, MILLION, 384, server) == server.building


def test_work_and_sizes_are_as_measured_elsewhere() -> None:
    """100,000 rows of 384 dimensions on another machine: seconds in two processes, and megabytes."""
    for candidate, seconds, megabytes in ((PLAIN, 50, 205), (HALF, 51 / 68 * 50, 117), (BITS, 28 / 68 * 50, 35)):
        assert candidate.size(100_000, 384) / 1e6 == pytest.approx(megabytes, rel=0.03)
        share = candidate.work(100_000, 384) / PLAIN.work(100_000, 384)
        assert share == pytest.approx(seconds / 50, rel=0.4)
    assert DEEP.work(100_000, 384) / PLAIN.work(100_000, 384) == pytest.approx(194 / 68, rel=0.1)
    assert index_bytes(1000, 2000, "vector", HNSW()) > 1000 * 8192


MEASURED = Curve(5000, 1000, {10: 0.95, 20: 0.98, 40: 0.99, 100: 1.0, 200: 1.0}, growth_of(20))


@given(st.floats(1, 1000), st.floats(1, 1000), st.floats(5000, 1e9), st.floats(5000, 1e9))
def test_recall_grows_with_effort_and_falls_with_rows(one: float, two: float, few: float, many: float) -> None:
    low, high = sorted((one, two))
    few, many = sorted((few, many))
    assert 0 < MEASURED.at(low, few) <= MEASURED.at(high, few) + 1e-12 <= 1
    assert MEASURED.at(one, many) <= MEASURED.at(one, few) + 1e-12


def test_a_curve_is_what_was_measured() -> None:
    for effort in (10, 20, 40):
        assert MEASURED.at(effort, 5000) == pytest.approx(MEASURED.recalls[effort])
    assert MEASURED.at(100, 5000) == pytest.approx(0.9995)  # half a miss, for none was seen
    assert MEASURED.at(64, 5000 * 8) == pytest.approx(MEASURED.at(64 * 8 ** -growth_of(20), 5000))
    assert MEASURED.at(20, 100) == MEASURED.at(20, 5000)
    assert typical(8).at(64, 100_000) > typical(25).at(64, 100_000) > typical(25).at(64, 10_000_000)
    assert typical(float("nan")).at(64, 100_000) > 0.9


def test_ranks_are_those_of_what_is_held() -> None:
    vectors = gaussian(300, 64)
    queries = np.arange(20)
    assert ranks(vectors, vectors, queries, 5, "l2", "l2").tolist() == [[1, 2, 3, 4, 5]] * 20
    by_bits = ranks(vectors, signs(vectors), queries, 5, "cosine", "inner_product")
    assert by_bits.min() >= 1
    assert 5 < np.median(by_bits) < 60  # the true neighbours are near, not first
    shuffled = ranks(vectors, gaussian(300, 64, seed=1), queries, 5, "cosine", "cosine")
    assert np.median(shuffled) > 100
    curve = Curve.of_ranks(by_bits, np.minimum(by_bits, 75), 300, 75, 0.1)
    assert curve.recalls[1000] == 1
    assert curve.growth >= 0.1


def test_words() -> None:
    assert [duration(one) for one in (0.0004, 0.05, 4, 70, 600, 10_000)] == [
        "0.4 ms",
        "50 ms",
        "4.0 s",
        "70 s",
        "10 min",
        "2.8 h",
    ]
    assert [size(one) for one in (12, 2048, 3 * 2**20, 5.5 * 2**30)] == ["12 bytes", "2 kB", "3 MB", "5.5 GB"]
