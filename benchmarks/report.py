"""One report on searching: index kinds, growth, filters, and other stores; a Markdown file with its plots.

    python -m benchmarks.report --output FOLDER [--quick] [--rows 100000] [--million] [--url URL] [--parts kinds,growth]

Parts: kinds (recall against queries a second, build time and size of every kind of index), growth (10,000 rows to
300,000, or to a million with --million), filters (those of benchmarks.filters), rivals (pgvector.sqlalchemy,
langchain-postgres, LlamaIndex, LanceDB and Chroma, as far as they can be imported). --quick: 10,000 rows, in a minute.

Vectors are those of benchmarks.generated; --cranfield FOLDER: for the rivals MiniLM's of the sentences of cran.all.1400
as well. Recall is against exact search by numpy, of 200 vectors that are not among the rows. The server is an embedded
one with 4 GB of shared buffers, unless --url names another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import sqlalchemy
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks import filters, pictures
from benchmarks.generated import DIM, QUERIES, Array, Data, K, generate
from benchmarks.harness import machine, server, take_turns
from benchmarks.rivals import STORES, Rival
from benchmarks.search import sentences
from benchmarks.table import build, fill, look, model, searching
from embeddb import HNSW, IVFFlat
from embeddb.insight.recall import keep, measure
from embeddb.spec import VectorIndex

TARGET = 0.95
PARTS = 5
EFFORTS = Rival.efforts
GROWING = range(12, 400, 4)
PREFIX = "HNSW(prefix=128), reranked"
KINDS: dict[str, Callable[[int], VectorIndex]] = {
    "HNSW": lambda rows: HNSW(),
    "HNSW(cast=halfvec)": lambda rows: HNSW(cast="halfvec"),
    "IVFFlat": lambda rows: IVFFlat(lists=max(10, rows // 1000)),
    "HNSW(cast=binary), reranked": lambda rows: HNSW(cast="binary"),
    PREFIX: lambda rows: HNSW(prefix=128),
}


def kinds(engine: Engine, data: Data, out: Path) -> list[str]:
    """Every kind of index, swept."""
    lines = [
        f"## Index kinds, {len(data.stored):,} rows × {DIM}",
        "",
        f"| index | build s | MB | size / HNSW | effort at .95 | its recall@{K} | queries/s |",
        "|---|---|---|---|---|---|---|",
    ]
    curves: dict[str, list[tuple[float, float]]] = {}
    first = 0
    for name, make in KINDS.items():
        index = make(len(data.stored))
        used = replace(data, stored=data.plain[0], queries=data.plain[1]) if name == PREFIX else data
        if first == 0 or name == PREFIX:
            fill(engine, used.stored)
        row = model(index)
        seconds, size = build(engine, row)
        first = first or size
        most = index.lists if isinstance(index, IVFFlat) else EFFORTS[-1]
        best: tuple[int, float, float] | None = None
        for effort in (1, 2, 3, 5, 7, *EFFORTS) if most < 1000 else EFFORTS:
            if effort > most:
                break
            with engine.begin() as connection:
                look(connection, row, effort)
            with Session(engine) as session:
                search = searching(session, row)
                recall, rate = used.recall(search), _rate(search, used.queries)
            curves.setdefault(name, []).append((recall, rate))
            if recall >= TARGET and best is None:
                best = (effort, recall, rate)
            if recall >= 0.998:
                break
        said = f"{best[0]} | {best[1]:.3f} | {best[2]:,.0f}" if best else f"– | {curves[name][-1][0]:.3f} at most | –"
        lines.append(f"| {name} | {seconds:.1f} | {size / 1e6:.0f} | {size / first:.2f} | {said} |")
    pictures.curves(out / "kinds.png", curves, len(data.stored), TARGET)
    return [*lines, "", "![recall against queries per second](kinds.png)"]


def _rate(search: Callable[[Array], object], queries: Array) -> float:
    times = []
    for query in queries:
        begin = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - begin)
    return 1 / statistics.median(times)


def growth(engine: Engine, sizes: Sequence[int], out: Path, runs: int) -> list[str]:
    """Latency by rows, at one recall, in turns."""
    index = HNSW(cast="halfvec")
    lines = [
        f"## Growth, HNSW(cast=halfvec), the least effort for a recall of {TARGET}",
        "",
        f"| rows | build s | index MB | ef_search | recall@{K} | ms, median | / the row above |",
        "|---|---|---|---|---|---|---|",
    ]
    said: dict[int, str] = {}
    work: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for rows in sizes:
            data = generate(rows)
            fill(engine, data.stored, f"bench_report_{rows}")
            row = model(index, f"bench_report_{rows}")
            seconds, size = build(engine, row)
            session = stack.enter_context(Session(engine))
            search = searching(session, row)
            for effort in GROWING:
                session.rollback()
                with engine.begin() as connection:
                    look(connection, row, effort)
                recall = data.recall(search)
                if recall >= TARGET:
                    break
            said[rows] = f"| {rows:,} | {seconds:.0f} | {size / 1e6:.0f} | {effort} | {recall:.3f}"
            work[str(rows)] = partial(_each, search, data.queries)
        times = take_turns(work, 2 * runs)
    shown = [(rows, 1000 * statistics.median(times[str(rows)]) / QUERIES) for rows in sizes]
    for before, (rows, milliseconds) in zip((None, *sizes), shown, strict=False):
        ratios = [a / b for a, b in zip(times[str(rows)], times[str(before)], strict=True)] if before else []
        more = f"{statistics.median(ratios):.2f}" if ratios else ""
        lines.append(f"{said[rows]} | {milliseconds:.2f} | {more} |")
    pictures.growth(out / "growth.png", shown, TARGET)
    return [*lines, "", "![latency by rows](growth.png)"]


def _each(search: Callable[[Array], object], queries: Array) -> None:
    for query in queries:
        search(query)


def filtered(engine: Engine, data: Data, runs: int, out: Path) -> list[str]:
    """The table of benchmarks.filters."""
    filters.fill(engine, data)
    with engine.connect() as connection:
        fit = measure(connection, filters.Row.embedding)
        with connection.begin():
            keep(connection, fit)
    table = filters.filtered(engine, data, runs)
    lines = [
        f"## Filters, {len(data.stored):,} rows × {DIM}",
        "",
        "| " + " | ".join(str(c.header) for c in table.columns) + " |",
    ]
    lines.append("|---" * len(table.columns) + "|")
    found = list(zip(*(map(str, column.cells) for column in table.columns), strict=True))
    pictures.filters(out / "filters.png", found, len(data.stored))
    lines += ["| " + " | ".join(cells) + " |" for cells in found]
    lines += ["", "ratio: to the better of exact and iterative, the latter where its recall is above .985."]
    return [*lines, "", "![time and recall by filter](filters.png)"]


def rivals(url: str, data: Data, runs: int, what: str) -> list[str]:
    """Queries a second of every store at a recall of .95 or more, in turns."""
    lines = [
        f"## Other stores, {len(data.stored):,} {what} × {DIM}, one connection, recall@{K} ≥ {TARGET}",
        "",
        "| store | effort | recall | queries/s | middle half | embeddb / it |",
        "|---|---|---|---|---|---|",
    ]
    ready: dict[str, tuple[Rival, int, float]] = {}
    skipped: list[str] = []
    with ExitStack() as stack:
        for kind in STORES:
            rival = kind(url, stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                rival.load(data.stored)
            except ImportError as error:
                skipped.append(f"{kind.name} is left out: {error}.")
                continue
            stack.callback(rival.close)
            for effort in rival.efforts:
                rival.tune(effort)
                recall = data.recall(rival.search)
                if recall >= TARGET:
                    break
            ready[kind.name] = rival, effort, recall

        def settle() -> None:
            time.sleep(0.3)  # some have threads that go on

        def turn(rival: Rival) -> Callable[[], object]:
            parts = cycle(np.split(data.queries, PARTS))  # short turns, for a noisy machine
            return lambda: [rival.search(query) for query in next(parts)]

        times = take_turns({name: turn(rival) for name, (rival, _, _) in ready.items()}, runs * PARTS, settle)
        for name, (_, effort, recall) in ready.items():
            rates = sorted(len(data.queries) / PARTS / seconds for seconds in times[name])
            ratio = statistics.median(a / b for a, b in zip(times[name], times["embeddb"], strict=True))
            lines.append(
                f"| {name} | {effort} | {recall:.3f} | {statistics.median(rates):,.0f} "
                f"| {rates[len(rates) // 4]:,.0f} – {rates[-len(rates) // 4]:,.0f} | {ratio:.2f} |"
            )
    return [*lines, "", *skipped]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder for report.md and its plots")
    parser.add_argument("--quick", action="store_true", help="10,000 rows")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--million", action="store_true", help="let growth go to a million rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--parts", default="kinds,growth,filters,rivals")
    parser.add_argument("--cranfield", type=Path, help="the folder with cran.all.1400")
    parser.add_argument("--url", help="a database of your own; its tables bench_* and data_bench_llama are replaced")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.runs = 10_000, 3
    sizes = [1_000, 10_000] if options.quick else [10_000, 100_000, 1_000_000 if options.million else 300_000]
    parts = options.parts.split(",")
    options.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url = options.url or stack.enter_context(server())
        engine = create_engine(url, connect_args={"prepare_threshold": 0})
        stack.callback(engine.dispose)
        data = generate(options.rows)
        work: dict[str, Callable[[], list[str]]] = {
            "kinds": lambda: kinds(engine, data, options.output),
            "growth": lambda: growth(engine, sizes, options.output, options.runs),
            "filters": lambda: filtered(engine, data, min(options.runs, 3), options.output),
            "rivals": lambda: rivals(url, data, options.runs, "generated rows"),
        }
        with engine.connect() as connection:
            postgres = connection.scalar(text("SHOW server_version"))
            asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            pgvector = connection.scalar(text(asked))
        versions = f"Postgres {postgres}, pgvector {pgvector}, SQLAlchemy {sqlalchemy.__version__}"
        lines = ["# Searching", "", f"{machine()}, {versions}, {datetime.now(UTC):%Y-%m-%d}. Medians; one connection."]
        for part in parts:
            lines += ["", *work[part]()]
            (options.output / "report.md").write_text("\n".join(lines) + "\n")
            if part == "rivals" and options.cranfield is not None:
                real = Data.of(sentences(options.cranfield))
                lines += ["", *rivals(url, real, options.runs, "sentences of Cranfield by MiniLM")]
                (options.output / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
