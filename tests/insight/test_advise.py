"""``advise``: what is predicted comes near what is built, and what is chosen follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from embeddb.cli.main import build
from embeddb.errors import QueryError
from embeddb.insight.advise import Advice, Prediction, Server, advise, choose
from embeddb.insight.candidates import Candidate, candidates, grown, index_source, lists_for
from embeddb.insight.sample import subject_of
from embeddb.insight.sizes import index_bytes
from embeddb.spec import HNSW, IVFFlat

ROOMY = Server(cache=4 * 2**30, building=64 * 2**20, written=0.0)
GRAPH, HALF = Candidate("vector", HNSW()), Candidate("vector", HNSW(cast="halfvec"))
BITS, LISTS = Candidate("vector", HNSW(cast="binary")), Candidate("vector", IVFFlat(lists=1000))


@pytest.fixture(scope="module")
def found(engine: Engine) -> Advice:
    with engine.connect() as connection:
        return advise(connection, "notes.embedding", rows=500_000, queries=20, sample=1000, trials=True)


def test_predicted_sizes_are_those_built(found: Advice) -> None:
    assert len(found.predictions) >= 5
    for prediction in found.predictions:
        assert prediction.trial is not None
        made = prediction.trial.candidate.size(prediction.trial.rows, found.subject.dim)
        # The first page holds no rows, and the last one few.
        assert made == pytest.approx(prediction.trial.size, rel=0.1, abs=3 * 8192)
        assert prediction.index > 100 * made
        assert prediction.trial.recall >= 0.95
        assert 0.8 < prediction.recall <= prediction.trial.recall
        assert prediction.trial.milliseconds > 0


def test_the_largest_build_takes_longest(found: Advice) -> None:
    seconds = {prediction.candidate: prediction.trial.seconds for prediction in found.predictions if prediction.trial}
    deep = next(one for one in seconds if isinstance(one.index, HNSW) and one.index.m == 24)
    assert seconds[deep] > seconds[next(one for one in seconds if isinstance(one.index, IVFFlat))]
    assert max(found.predictions, key=lambda one: one.seconds).candidate == deep


def test_nothing_is_left_behind_and_few_rows_need_no_index(engine: Engine) -> None:
    with engine.connect() as connection:
        plain = advise(connection, "notes.embedding", queries=10, sample=300)
        assert plain.chosen is None
        assert plain.declaration == "index=None"
        assert "exact scan" in plain.reasons[0]
        assert not any(prediction.trial for prediction in plain.predictions)
        assert connection.scalar(text("SELECT count(*) FROM pg_class WHERE relname LIKE '%embeddb_trial%'")) == 0


def test_work_is_as_the_builds_it_was_fitted_to() -> None:
    measured = {
        GRAPH: 68,
        Candidate("vector", HNSW(m=24, ef_construction=200)): 194,
        Candidate("halfvec", HNSW()): 51,
        BITS: 28,
        Candidate("vector", IVFFlat(lists=100)): 3.6,
    }
    pace = 68 / GRAPH.work(100_000, 384)
    for candidate, seconds in measured.items():
        assert pace * candidate.work(100_000, 384) == pytest.approx(seconds, rel=0.2)


def test_sizes_are_as_measured_elsewhere() -> None:
    for candidate, megabytes in ((GRAPH, 205), (HALF, 117), (BITS, 35)):
        assert candidate.size(100_000, 384) / 1e6 == pytest.approx(megabytes, rel=0.03)
    assert index_bytes(1000, 2000, "vector", HNSW()) > 1000 * 8192


def predicted(**recalls: float) -> list[Prediction]:
    named = {"graph": GRAPH, "half": HALF, "bits": BITS, "lists": LISTS}
    return [
        Prediction(named[name], one.column(1e6, 384), one.size(1e6, 384), one.work(1e6, 384) * 1e-5, recall)
        for name, recall in recalls.items()
        if (one := named[name])
    ]


def chosen(rows: int, recall: float, server: Server, **recalls: float) -> Any:
    found = choose(predicted(**recalls), rows, recall, server)
    return found and found.candidate


def test_choice_weighs_rows_recall_memory_and_writes() -> None:
    good = {"graph": 0.99, "half": 0.985, "bits": 0.96, "lists": 0.97}
    assert chosen(10_000, 0.95, ROOMY, **good) is None
    tight = replace(ROOMY, cache=2**30)
    assert chosen(1_000_000, 0.95, replace(ROOMY, cache=8 * 2**30), **good) == HALF
    assert chosen(1_000_000, 0.95, tight, **good) == BITS
    assert chosen(1_000_000, 0.98, tight, **good) == HALF
    assert chosen(1_000_000, 0.988, tight, **good) == GRAPH
    assert chosen(1_000_000, 0.999, tight, **good) == GRAPH  # the nearest there is
    assert chosen(1_000_000, 0.95, tight, graph=0.9, lists=0.97) == LISTS
    assert chosen(1_000_000, 0.95, replace(tight, written=0.5), graph=0.9, lists=0.97) == GRAPH


def test_misses_grow_with_rows_and_are_never_none() -> None:
    assert grown(0.99, 1000, 1_000_000, 10_000) == pytest.approx(0.98)
    assert grown(1.0, 1000, 1000, 1000) == pytest.approx(0.9995)
    assert grown(0.99, 1000, 1_000_000, 10_000) < grown(0.99, 1000, 10_000, 10_000)


def test_candidates_are_what_pgvector_can_build(engine: Engine) -> None:
    with engine.connect() as connection:
        narrow = subject_of(connection, "notes.embedding")
    assert [one.index.cast for one in candidates(narrow, 1e6)].count("binary") == 0
    wide = replace(narrow, dim=3072, metric="l1", index=HNSW(cast="binary"))
    found = [one.declaration for one in candidates(wide, 1e6)]
    assert found[0] == 'index=HNSW(cast="binary")'
    assert 'index=HNSW(cast="halfvec")' in found
    assert 'storage="halfvec", index=HNSW()' in found
    assert "index=HNSW()" not in found  # more than 2,000 dimensions
    assert not any("IVFFlat" in one for one in found)  # which has no l1
    assert len(set(found)) == len(found)
    assert (lists_for(500), lists_for(200_000), lists_for(4_000_000)) == (10, 200, 2000)
    assert index_source(IVFFlat(lists=7, cast="binary")) == 'IVFFlat(lists=7, cast="binary")'


def test_what_cannot_be_advised(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(QueryError, match="a recall is above 0"):
            advise(connection, "notes.embedding", recall=1)
        with pytest.raises(QueryError, match="20 rows with a vector, too few"):
            advise(connection, "notes.embedding", sample=20)
        assert not connection.in_transaction()


def test_command(url: str, tmp_path: Path) -> None:
    picture = tmp_path / "trials.png"
    arguments = ["advise", "notes.embedding", "--rows", "200000", "--queries", "10", "--sample", "200", "-u", url]
    result = CliRunner().invoke(build(), [*arguments, "--try", "--plot", str(picture)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    assert "ms a query" in result.output
    assert result.output.count("→") == 1
    assert "\nDeclare " in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = CliRunner().invoke(build(), [*arguments, "--plot", str(picture)])
    assert refused.exit_code == 2
    assert "give both" in refused.output
