"""``advise``: what is predicted comes near what is built, and what is chosen follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, text

from embeddb import HNSW, IVFFlat, LocalPostgres, bulk_load
from embeddb.errors import QueryError
from embeddb.insight.advise import Advice, advise
from embeddb.insight.candidates import Candidate
from embeddb.insight.sizes import graph_bytes
from embeddb.orm.bit_types import BIT
from embeddb.orm.types import HALFVEC, VECTOR
from tests.insight.vectors import decaying, gaussian

DEEP = Candidate("vector", HNSW(m=24, ef_construction=200))
#: Enough to tell kinds apart.
QUICK: dict[str, Any] = {"queries": 10, "recall": 0.9}


@pytest.fixture(scope="module", autouse=True)
def _wide(engine: Engine) -> Iterator[None]:
    """900 rows of 256 dimensions, that no one registered."""
    table = Table("wide", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(256)))
    with engine.begin() as connection:
        table.create(connection)
        bulk_load(connection, table, {"id": np.arange(900), "embedding": decaying(900, 256)})
    yield
    table.drop(engine)


@pytest.fixture(scope="module")
def tried(engine: Engine) -> dict[int, Advice]:
    """Candidates built over 300 and over 900 of 900 rows, planned for many."""
    with engine.connect() as connection:
        return {
            rows: advise(connection, "wide.embedding", rows=500_000, sample=rows, trials=True, **QUICK)
            for rows in (300, 900)
        }


@pytest.mark.parametrize("rows", [300, 900])
def test_predicted_sizes_are_those_built(tried: dict[int, Advice], rows: int) -> None:
    found = tried[rows]
    kinds = {one.candidate.index.cast or one.candidate.index.method for one in found.predictions}
    assert kinds == {"hnsw", "ivfflat", "halfvec", "binary"}
    assert any(one.candidate.index.prefix for one in found.predictions)
    assert any(one.candidate.storage == "halfvec" for one in found.predictions)
    for one in found.predictions:
        assert one.trial is not None
        assert one.trial.rows == rows
        # The first page holds no rows, and the last one few.
        made = one.trial.candidate.size(rows, found.subject.dim)
        assert made == pytest.approx(one.trial.size, rel=0.1, abs=3 * 8192)
        assert 0 < one.recall <= one.most <= 1
        assert one.trial.milliseconds > 0


def test_the_largest_build_takes_longest(tried: dict[int, Advice]) -> None:
    seconds = {one.candidate: one.trial.seconds for one in tried[900].predictions if one.trial}
    lists = next(one for one in seconds if isinstance(one.index, IVFFlat))
    assert seconds[DEEP] > seconds[lists]
    expected = {one.candidate: one.seconds for one in tried[900].predictions}
    assert expected[DEEP] > 60 > expected[lists]


def test_nothing_is_left_behind_and_few_rows_need_no_index(engine: Engine) -> None:
    with engine.connect() as connection:
        before = connection.scalar(text("SELECT count(*) FROM pg_class"))
        plain = advise(connection, "notes.embedding", sample=600, **QUICK)
        assert connection.scalar(text("SELECT count(*) FROM pg_class")) == before
    assert plain.chosen is None
    assert plain.declaration == "index=None"
    assert not plain.changes
    assert plain.calibration.how == "calibrated"
    assert "exact search of 1,200 rows" in plain.reasons[0]
    assert "An index begins to pay" in plain.reasons[0]
    assert not any(one.trial for one in plain.predictions)


def test_recall_carried_over_is_what_more_rows_have(engine18: Engine) -> None:
    """From 500 rows to 2,000 that are hard: sixteen independent dimensions."""
    rows = 2000
    columns = {"id": np.arange(rows), "embedding": gaussian(rows, 16)}
    table = Table("hard", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(16)))
    with engine18.begin() as connection:
        table.create(connection)
        bulk_load(connection, table, columns)
    with engine18.connect() as connection:
        few, many = (advise(connection, "hard.embedding", sample=size, trials=True, queries=25) for size in (500, rows))
    assert few.calibration.intrinsic == pytest.approx(14, abs=4)
    for before, after in zip(few.predictions, many.predictions, strict=True):
        assert before.candidate == after.candidate
        assert before.recall == pytest.approx(after.recall, abs=0.04)


def test_a_role_that_may_only_read(engine: Engine, server18: LocalPostgres) -> None:
    name = engine.url.database
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN"))
        connection.execute(text("GRANT SELECT ON notes, wide TO reader"))
        connection.execute(text(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC'))
    reading = create_engine(engine.url.set(username="reader"))
    try:
        with reading.connect() as connection:
            found = advise(connection, "wide.embedding", rows=2_000_000, memory="32GB", **QUICK)
            with pytest.raises(QueryError, match="GRANT TEMPORARY"):
                advise(connection, "wide.embedding", trials=True)
        assert found.calibration.how == "timed"
        assert found.declaration == 'index=HNSW(cast="halfvec")'
        assert any("Nothing was built" in reason for reason in found.reasons)
        assert found.building is not None
        with reading.connect().execution_options(postgresql_readonly=True) as connection:
            assert advise(connection, "wide.embedding", **QUICK).chosen is None
    finally:
        reading.dispose()
        with engine.begin() as connection:
            connection.execute(text(f'GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC'))
            connection.execute(text("DROP OWNED BY reader"))
            connection.execute(text("DROP ROLE reader"))


@pytest.fixture
def odd(engine: Engine) -> Any:
    """A table with an odd name in an odd schema, and columns of many kinds."""
    table = Table(
        'Odd "names"',
        MetaData(schema="my schema"),
        Column("id", Integer, primary_key=True),
        Column("group", Integer),
        Column("The vector", VECTOR(8)),
        Column("wide", HALFVEC(4096)),
        Column("few", VECTOR(3072)),
        Column("bits", BIT(64)),
    )
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "my schema"'))
        table.create(connection)
        rows = 200
        columns = {"id": np.arange(rows), "The vector": decaying(rows, 8), "group": np.arange(rows) % 2}
        bulk_load(connection, table, columns)
        connection.execute(text('ANALYZE "my schema"."Odd ""names"""'))
    yield table
    with engine.begin() as connection:
        connection.execute(text('DROP SCHEMA "my schema" CASCADE'))


def test_odd_names_wide_vectors_and_none_yet(engine: Engine, odd: Table) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                'CREATE INDEX ON "my schema"."Odd ""names""" USING hnsw '
                '((subvector("The vector", 1, 4)::halfvec(4)) halfvec_l2_ops) WITH (m = 8)'
            )
        )
    with engine.connect() as connection:
        place = 'my schema.Odd "names"'
        found = advise(connection, f"{place}.The vector", rows=5_000_000, **QUICK)
        # What is declared nowhere is read off the index that is there.
        assert (found.subject.metric, found.subject.index) == ("l2", HNSW(m=8, cast="halfvec", prefix=4))
        assert any('PARTITION BY LIST ("group")' in reason for reason in found.reasons)
        assert found.calibration.how == "timed"  # 200 rows tell nothing of five million
        none = advise(connection, f"{place}.few")
        assert none.rows == 200
        assert none.chosen is None
        assert "None of 200 rows has a vector yet" in " ".join(none.reasons)
        planned = advise(connection, f"{place}.few", rows=2_000_000, memory="64GB")
        assert planned.calibration.how == "typical"
        assert planned.declaration == 'index=HNSW(cast="halfvec")'
        widest = advise(connection, f"{place}.wide", rows=2_000_000)
        assert widest.chosen is not None
        assert widest.chosen.reranks
        assert widest.building is not None
        with pytest.raises(QueryError, match="holds bits, and this takes vectors"):
            advise(connection, f"{place}.bits")
        with pytest.raises(QueryError, match="0 rows with a vector, too few to try"):
            advise(connection, f"{place}.few", trials=True)


def test_what_cannot_be_advised(engine: Engine) -> None:
    with engine.connect() as connection:
        for arguments, message in (
            ({"recall": 1}, "a recall is above 0"),
            ({"memory": "lots"}, "a memory is written as Postgres does, 16GB"),
            ({"sample": 20, "trials": True}, "20 rows with a vector, too few to try"),
        ):
            with pytest.raises(QueryError, match=message):
                advise(connection, "notes.embedding", **arguments)
        with pytest.raises(QueryError, match="no table 'none'"):
            advise(connection, "none.embedding")
        with pytest.raises(QueryError, match="neither table.column nor"):
            advise(connection, "notes")
        assert not connection.in_transaction()


def test_writes_and_filters_are_seen(module_engine: Engine) -> None:
    table = Table(
        "busy",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant", Integer),
        Column("kind", Integer),
        Column("embedding", VECTOR(16)),
    )
    rows = 2000
    with module_engine.begin() as connection:
        table.create(connection)
        numbers = np.arange(rows)
        columns = {"id": numbers, "tenant": numbers % 40, "kind": numbers % 3, "embedding": gaussian(rows, 16)}
        bulk_load(connection, table, columns)
        connection.execute(text("CREATE INDEX ON busy (kind)"))
        connection.execute(text("UPDATE busy SET kind = (kind + 1) % 3 WHERE id < 1500"))
    with module_engine.connect() as connection:
        connection.execute(text("ANALYZE busy"))
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        _flushed(connection)
        found = advise(connection, "busy.embedding", rows=3_000_000, memory="1GB", sample=600, **QUICK)
    said = "\n".join(found.reasons)
    assert found.server.changed == 1500
    assert {one.name: (one.values, one.indexed) for one in found.server.filters} == {
        "tenant": (40, False),
        "kind": (3, True),
    }
    assert "PARTITION BY LIST (tenant)" in said
    assert "PARTITION BY LIST (kind)" in said
    with module_engine.connect() as connection:
        connection.execute(text("ANALYZE busy"))
        few = advise(connection, "busy.embedding", sample=600, **QUICK)
    assert few.server.churn(few.rows) == pytest.approx(0.75)
    assert "1,500 rows were changed or deleted" in "\n".join(few.reasons)
    assert "want a B-tree index on tenant" in "\n".join(few.reasons)


def _flushed(connection: Connection) -> None:
    connection.execute(text("SELECT pg_stat_clear_snapshot()"))
    connection.rollback()


def test_memory_of_a_build_is_as_measured() -> None:
    """By the rows after which pgvector 0.8.5 said that a graph no longer fits into 8 MB."""
    for dim, m, rows in ((32, 16, 9960), (384, 16, 3729), (1024, 16, 1742), (384, 24, 3348)):
        assert graph_bytes(rows, dim, "vector", HNSW(m=m)) == pytest.approx(2**23, rel=0.03)
    assert graph_bytes(10995, 384, "vector", HNSW(cast="binary")) == pytest.approx(2**23, rel=0.03)


def test_vectors_out_of_line(engine18: Engine) -> None:
    table = Table("long", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(768)))
    with engine18.begin() as connection:
        table.create(connection)
        bulk_load(connection, table, {"id": np.arange(60), "embedding": gaussian(60, 768)})
    with engine18.connect() as connection:
        moved = "ALTER TABLE long ALTER embedding SET STORAGE PLAIN"
        assert moved in "\n".join(advise(connection, "long.embedding", **QUICK).reasons)
        connection.execute(text(moved))
        connection.commit()
        assert moved not in "\n".join(advise(connection, "long.embedding", **QUICK).reasons)


def test_partitions_and_three_rows(engine18: Engine) -> None:
    with engine18.begin() as connection:
        for statement in (
            "CREATE TABLE parts (id int, tenant int, kind int, embedding vector(8)) PARTITION BY LIST (tenant)",
            "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0)",
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)",
            "INSERT INTO parts SELECT i, i % 2, i % 3, ARRAY[i, i % 7, i % 13, i % 17, i % 5, i % 11, 1, 2]::vector "
            "FROM generate_series(1, 900) AS i",
            "CREATE INDEX ON parts USING hnsw (embedding vector_l1_ops)",
            "ANALYZE parts",
            "CREATE TABLE three (id int, embedding vector(3))",
            "INSERT INTO three VALUES (1, '[1,2,3]'), (2, '[1,2,4]'), (3, '[3,2,1]')",
        ):
            connection.execute(text(statement))
    with engine18.connect() as connection:
        found = advise(connection, "parts.embedding", rows=10_000_000, memory="8GB", **QUICK)
        three = advise(connection, "three.embedding")
    assert (found.subject.metric, found.subject.index) == ("l1", HNSW())
    said = "\n".join(found.reasons)
    assert "partitioned by LIST (tenant)" in said
    assert "tenant has" not in said
    assert "kind has 3 values" in said
    assert "or search single parts" in said
    assert three.chosen is None
    assert three.calibration.how == "typical"
    assert "too few to measure by" in "\n".join(three.reasons)
