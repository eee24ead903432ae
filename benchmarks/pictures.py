"""The report's plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.generated import DIM, K
from benchmarks.harness import machine


@contextmanager
def picture(path: Path, *, rows: int = 1, height: float = 5) -> Iterator[Any]:
    """Axes to draw on, one above the other; saved at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, figsize=(8, height), sharex=True, layout="constrained")
    yield axes
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def curves(path: Path, found: Mapping[str, Sequence[tuple[float, float]]], rows: int, target: float) -> None:
    """Recall against queries a second, by kind of index."""
    with picture(path) as axes:
        for name, points in found.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xlabel=f"recall@{K}", ylabel="queries/s, one connection", title=f"{rows:,} rows × {DIM}, {machine()}")
        axes.axvline(target, color="grey", linewidth=0.5)
        axes.legend()


def filters(path: Path, found: Sequence[Sequence[str]], rows: int) -> None:
    """Time and recall by filter, from the table of benchmarks.filters."""
    names, recall, _, exact, iterative, its_recall, ours, _ = zip(*found, strict=True)
    with picture(path, rows=2, height=7) as (above, below):
        for name, times in {"exact": exact, "iterative": iterative, "nearest": ours}.items():
            above.semilogy(names, list(map(float, times)), marker="o", label=name)
        above.set(ylabel="ms, median", title=f"{rows:,} rows × {DIM}, {machine()}")
        above.legend()
        below.plot(names, list(map(float, its_recall)), marker="o", color="C1")
        below.plot(names, list(map(float, recall)), marker="o", color="C2")
        below.set(ylabel=f"recall@{K}", ylim=(0, 1.05))
        below.tick_params(axis="x", rotation=25)


def growth(path: Path, found: Sequence[tuple[int, float]], target: float) -> None:
    """Milliseconds by rows."""
    with picture(path, height=4) as axes:
        axes.semilogx(*zip(*found, strict=True), marker="o")
        axes.set(xlabel="rows", ylabel=f"ms at recall@{K} of {target}", ylim=(0, None), title=machine())
