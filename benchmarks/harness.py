"""What the benchmarks share: work that takes turns, ratios of pairs, the machine's name, a table and a picture."""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from embeddb import LocalPostgres

Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figure:
    """How many times the work of ``base`` is done by ``ours`` in the same time; ``target`` is the promise, if any."""

    what: str
    ours: str
    base: str
    target: float | None = None

    def ratios(self, times: Times) -> list[float]:
        """One ratio for each round, in which both ran."""
        return [base / ours for base, ours in zip(times[self.base], times[self.ours], strict=True)]


@contextmanager
def server(shared_buffers: str = "4GB") -> Iterator[str]:
    """The URL of an embedded Postgres whose buffers hold the index, as pgvector advises; gone at the end."""
    with LocalPostgres(settings={"shared_buffers": shared_buffers}) as local:
        yield local.url


def take_turns(
    work: Mapping[str, Callable[[], object]], runs: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each in ``runs`` rounds after one to warm up; ``before`` is called before each, and not timed.

    Every round has another order, so that a slow spell of the machine, and what the one before left in its caches, hits
    all alike.
    """
    names = list(work)
    shuffle = random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in range(-1, runs):
        shuffle(names)
        for name in names:
            before()
            gc.collect()
            begin = time.perf_counter()
            work[name]()
            if run >= 0:
                times[name].append(time.perf_counter() - begin)
    return times


def machine() -> str:
    """Processor, cores and system, for the head of a table."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def report(title: str, times: Times, figures: Sequence[Figure], units: int, unit: str) -> None:
    """Print rates, medians with their range, and each figure's ratio beside its target."""
    console = Console(width=140)
    console.print(title, machine(), sep="\n")
    rates = Table("way", f"{unit}/s, median", "range", "seconds, median")
    for name, seconds in times.items():
        low, high = units / max(seconds), units / min(seconds)
        middle = statistics.median(seconds)
        rates.add_row(name, f"{units / middle:,.0f}", f"{low:,.0f} – {high:,.0f}", f"{middle:.3f}")
    console.print(rates)
    ratios = Table("figure", "ratio of pairs, median", "range", "at least")
    for figure in figures:
        found = figure.ratios(times)
        spread = f"{min(found):.2f} – {max(found):.2f}"
        ratios.add_row(
            figure.what,
            f"{statistics.median(found):.2f}",
            spread,
            "" if figure.target is None else f"{figure.target:g}",
        )
    console.print(ratios)


def plot(path: Path, title: str, times: Times, units: int, unit: str) -> None:
    """Save the median rates, with their ranges, as a bar chart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rates = {name: sorted(units / seconds for seconds in measured) for name, measured in times.items()}
    medians = [statistics.median(rate) for rate in rates.values()]
    below = [median - rate[0] for median, rate in zip(medians, rates.values(), strict=True)]
    above = [rate[-1] - median for median, rate in zip(medians, rates.values(), strict=True)]
    figure, axes = pyplot.subplots(figsize=(9, 0.6 * len(rates) + 1.2), layout="constrained")
    axes.barh(list(rates), medians, xerr=[below, above], capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit}/s")
    axes.set_title(textwrap.fill(title, 110), fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
