"""A diagnosis as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embeddb.encoders.settings import require
from embeddb.insight.diagnosis import Diagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure(columns: int, rows: int, what: str) -> Figure:
    """An empty picture of so many fields, that needs no display; MissingExtra where matplotlib is not installed."""
    made: Figure = require("matplotlib.figure", "insight", what).Figure(
        figsize=(5 * columns, 4 * rows), layout="constrained"
    )
    return made


def markdown(found: Diagnosis, plot: str | None) -> str:
    """The report."""
    norms = found.norms
    rows = [
        ("rows with a vector", f"{found.rows:,}"),
        ("sampled", f"{found.sampled:,}"),
        ("dimensions", str(found.dim)),
        ("norm, least / median / most", f"{norms.least:.4g} / {norms.median:.4g} / {norms.most:.4g}"),
        ("spread of norms", f"{norms.spread:.2%}"),
        ("intrinsic dimension (TwoNN)", f"{found.intrinsic:.1f}"),
        ("participation ratio", f"{found.participation:.1f}"),
        (f"hubness (skewness of {found.k}-occurrences)", f"{found.hubness:.2f}"),
        ("neighbours that are the busiest 1% of rows", f"{found.hub:.1%}"),
        ("mean cosine of two rows", f"{found.mean_cosine:.3f}"),
        (f"rows with another within cosine {found.duplicate_cosine:g}", f"{found.duplicates:.2%}"),
    ]
    parts = [
        f"# {found.name}",
        f"{found.storage}({found.dim}), compared by {found.metric}.",
        "## Advice\n\n" + "\n".join(f"- {line}" for line in found.advice),
        "## The vectors\n\n" + _table(("what", "value"), rows),
        f"## Recall@{found.k} of smaller vectors\n\n"
        + _table(
            ("kind", "dimensions", "recall"),
            [(item.kind, str(item.dim), f"{item.recall:.4f}") for item in found.reductions],
        ),
        "## Megabytes per million rows\n\n"
        + _table(
            ("storage, index", "column", "index"),
            [(f"`{cost.name}`", f"{cost.column / 1e6:,.0f}", f"{cost.index / 1e6:,.0f}") for cost in found.costs],
        ),
    ]
    if plot is not None:
        parts.append(f"![Norms, occurrences, variance and recall](<{plot}>)")
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def plot(found: Diagnosis, path: Path) -> None:
    """Four fields: norms, k-occurrences, variance by components, recall by dimensions."""
    picture = figure(2, 2, "a plot")
    (norms, hubs), (variance, recall) = picture.subplots(2, 2)
    norms.hist(found.lengths, bins=50)
    norms.set(title="norms", xlabel="length", ylabel="rows")
    hubs.hist(found.counts, bins=min(50, max(found.counts) + 1), log=True)
    hubs.set(title=f"{found.k}-occurrences, skewness {found.hubness:.2f}", xlabel="times a neighbour", ylabel="rows")
    variance.plot(list(found.variance), list(found.variance.values()))
    variance.axvline(found.participation, linestyle="--", color="grey", label="participation ratio")
    if found.intrinsic == found.intrinsic:
        variance.axvline(found.intrinsic, linestyle=":", color="black", label="intrinsic dimension")
    variance.legend()
    variance.set(title="variance", xlabel="principal components", ylabel="share", ylim=(0, 1.02))
    _draw_recall(found, recall)
    picture.suptitle(f"{found.name}: {found.sampled:,} of {found.rows:,} rows")
    picture.savefig(path, format="png", dpi=110)


def _draw_recall(found: Diagnosis, axes: Axes) -> None:
    for kind in ("prefix", "pca"):
        points = sorted((item.dim, item.recall) for item in found.reductions if item.kind == kind)
        axes.plot([dim for dim, _ in points], [recall for _, recall in points], marker="o", label=kind)
    for kind in ("halfvec", "binary", "binary+rerank"):
        axes.plot([found.dim], [found.recall_of(kind)], linestyle="", marker="s", label=kind)
    axes.legend()
    axes.set(title=f"recall@{found.k}", xlabel="dimensions", ylabel="recall", ylim=(0, 1.02))
