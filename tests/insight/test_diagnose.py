"""``diagnose`` on a table: the figures are those of its rows, and the advice follows from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from embeddb.cli.main import build
from embeddb.errors import QueryError
from embeddb.insight import statistics
from embeddb.insight.diagnose import diagnose
from embeddb.insight.diagnosis import Diagnosis
from embeddb.insight.reductions import Reduction
from embeddb.insight.sizes import column_bytes, index_bytes
from embeddb.metrics import Storage
from embeddb.spec import HNSW, IVFFlat, VectorIndex
from tests.insight.conftest import DIM, ROWS, Note, vectors


@pytest.fixture(scope="module")
def found(engine: Engine) -> Diagnosis:
    return diagnose(engine, "notes.embedding")


def test_figures_are_those_of_the_rows(found: Diagnosis) -> None:
    rows = vectors()
    assert (found.rows, found.sampled, found.dim, found.metric) == (ROWS, ROWS, DIM, "cosine")
    assert found.norms[:3] == pytest.approx((1, 1.5, 2), abs=1e-3)
    assert found.norms.spread == pytest.approx(np.linspace(1, 2, ROWS).std() / 1.5, rel=1e-3)
    assert found.duplicates == pytest.approx(200 / ROWS, abs=0.005)
    assert found.mean_cosine == pytest.approx(statistics.mean_cosine(rows), abs=1e-5)
    assert found.participation == pytest.approx(statistics.participation_ratio(statistics.eigenvalues(rows)), rel=1e-3)
    expected = statistics.occurrences(statistics.neighbours(rows, 10, "cosine"), ROWS)
    assert sum(found.counts) == 10 * ROWS
    assert found.hubness == pytest.approx(statistics.skewness(expected), rel=0.02)  # copies are as near as one another
    assert found.variance[DIM] == pytest.approx(1)


def test_an_attribute_a_connection_and_a_column_that_nobody_registered(engine: Engine, found: Diagnosis) -> None:
    with engine.begin() as connection:
        by_attribute = diagnose(connection, Note.embedding, sample=300)
        assert by_attribute.sampled == 300
        assert by_attribute.norms.median == pytest.approx(found.norms.median, abs=0.1)
        connection.execute(text("CREATE TABLE halves AS SELECT id, embedding::halfvec(32) AS e FROM notes"))
        half = diagnose(connection, "public.halves.e")
        assert (half.storage, half.dim) == ("halfvec", DIM)
        assert half.mean_cosine == pytest.approx(found.mean_cosine, abs=1e-3)
        connection.rollback()


def test_a_session_will_do_and_what_is_async_is_told_how(engine: Engine) -> None:
    with Session(engine) as session:
        assert diagnose(session, Note.embedding, sample=300).sampled == 300
    bind: Any = create_async_engine(engine.url)
    with pytest.raises(QueryError, match=r"diagnose takes a session, .* not AsyncEngine: .*run_sync\(diagnose"):
        diagnose(bind, Note.embedding)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes", "neither table.column"),
        ("nothing.embedding", "no table 'nothing'"),
        ("notes.title", "no column of vectors"),
        ("notes.nothing", "no column of vectors"),
    ],
)
def test_what_cannot_be_diagnosed(engine: Engine, name: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        diagnose(engine, name)


def test_too_few_rows(engine: Engine) -> None:
    with pytest.raises(QueryError, match="12 rows with a vector: 10 neighbours of each need 20"):
        diagnose(engine, "notes.embedding", sample=12)


def advice(found: Diagnosis, **changes: object) -> str:
    return " ".join(replace(found, **changes).advice)  # type: ignore[arg-type]


def test_advice_follows_from_the_figures(found: Diagnosis) -> None:
    assert "duplicates()" in advice(found)
    assert "duplicates()" not in advice(found, duplicates=0.01)
    assert "Hubs" not in advice(found, hubness=1.0)
    assert "Hubs" in advice(found, hubness=5.0)
    assert "narrow cone" in advice(found, mean_cosine=0.8)
    assert "narrow cone" not in advice(found, mean_cosine=0.1)
    assert "exact scan" in advice(found, rows=10_000)
    assert "exact scan" not in advice(found, rows=100_000)
    assert "prefers long vectors" in advice(found, metric="inner_product")
    assert "fit-pca notes.embedding --dim 16" in advice(found)
    keep = [item for item in found.reductions if item.kind not in ("prefix", "pca")]
    cut = (*keep, Reduction("prefix", 16, 0.97), Reduction("pca", 16, 0.98))
    assert "HNSW(prefix=16)" in advice(found, reductions=cut)
    lost = (*keep, Reduction("prefix", 16, 0.5), Reduction("pca", 16, 0.6))
    assert "Keep the dimensions" in advice(found, reductions=lost)


INDEXES: list[tuple[int, Storage, VectorIndex]] = [
    (DIM, "vector", HNSW()),
    (300, "vector", HNSW(m=8, ef_construction=16)),
    (300, "halfvec", HNSW(ef_construction=32)),
    (300, "vector", HNSW(cast="binary", ef_construction=32)),
    (1200, "vector", HNSW(ef_construction=32)),
    (300, "vector", IVFFlat(lists=10)),
]


@pytest.mark.parametrize(("dim", "storage", "index"), INDEXES, ids=str)
def test_sizes_are_those_of_postgres(engine: Engine, dim: int, storage: Storage, index: VectorIndex) -> None:
    rows = 1500
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TEMP TABLE sized (e {storage}({dim}))"))
        random = "SELECT array_agg(random() - 0.5)::real[] FROM generate_series(1, :dim) WHERE n = n"
        connection.execute(
            text(f"INSERT INTO sized SELECT ({random})::{storage}({dim}) FROM generate_series(1, :rows) n"),
            {"dim": dim, "rows": rows},
        )
        what = f"(binary_quantize(e)::bit({dim})) bit_hamming_ops" if index.cast else f"e {storage}_l2_ops"
        options = ", ".join(f"{name} = {value}" for name, value in index.options.items())
        connection.execute(text(f"CREATE INDEX sized_e ON sized USING {index.method} ({what}) WITH ({options})"))
        size = connection.scalar(text("SELECT pg_relation_size('sized_e')"))
        table = connection.scalar(text("SELECT pg_table_size('sized')"))
        connection.rollback()
    assert index_bytes(rows, dim, storage, index) == pytest.approx(size, rel=0.08)
    assert rows * column_bytes(dim, storage) == pytest.approx(table, rel=0.35)  # rows have a header, pages an end


def test_command_writes_a_report_with_a_picture(engine: Engine, url: str, tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    command = ["diagnose", "notes.embedding", "--sample", "400", "--url", url]
    result = CliRunner().invoke(build(), [*command, "--out", str(report)])
    assert result.exit_code == 0, (result.output, result.exception)
    written = report.read_text()
    assert "# notes.embedding" in written
    assert "| binary+rerank | 32 |" in written
    assert "](<report.png>)" in written
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(build(), command, env={"COLUMNS": "200"})
    assert "participation ratio" in shown.output
