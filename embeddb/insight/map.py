"""A map of an embedding: its rows as points of a plane, as a picture and as a page that tells what each point is."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import LargeBinary, String

from embeddb.encoders.protocol import Vectors
from embeddb.encoders.settings import require
from embeddb.errors import QueryError
from embeddb.insight.report import figure
from embeddb.insight.sample import Subject, draw, subject_of
from embeddb.insight.shades import shaded
from embeddb.insight.statistics import unit
from embeddb.query.bind import Bind, connected
from embeddb.query.embedding import AnyEmbedding

Points = NDArray[np.float32]

#: Points that a page can draw while the mouse moves.
MOST: Final = 20_000
#: Groups with a colour of their own; the others share grey.
COLOURS: Final = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#8a8f00",
)  # fmt: skip
_GREY: Final = "#9498a0"
_OTHERS: Final = "others"
#: Characters of a row's text that are shown.
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Map:
    """Rows as points. ``views``: by method (PCA, UMAP), points of shape (n, 2). ``groups``: of each row, or empty.

    ``shades``: the colours of groups that have an order, ranges of numbers or times, in that order.
    """

    name: str
    rows: int
    color: str | None
    views: Mapping[str, Points]
    groups: tuple[str, ...]
    texts: tuple[str, ...]
    shades: Mapping[str, str] | None = None

    @property
    def legend(self) -> dict[str, str]:
        """Group → colour, the largest first, or in their order; what is beyond the colours is together."""
        if self.shades is not None:
            return dict(self.shades)
        counts = Counter(self.groups)
        ranked = sorted(counts, key=lambda group: (-counts[group], group))
        if len(ranked) > len(COLOURS):
            return {**dict(zip(ranked, COLOURS[:-1], strict=False)), _OTHERS: _GREY}
        return dict(zip(ranked, COLOURS, strict=False))

    def colours(self) -> list[str]:
        """The colour of each point."""
        legend = self.legend
        return [legend.get(group, _GREY) for group in self.groups] or [COLOURS[0]] * len(self.texts)

    def png(self, path: str | Path) -> None:
        """Draw it, a field for each view. Needs matplotlib; MissingExtra without."""
        picture = figure(len(self.views), 1, "a map")
        fields = picture.subplots(1, len(self.views), squeeze=False)[0]
        for axes, (method, points) in zip(fields, self.views.items(), strict=True):
            axes.scatter(points[:, 0], points[:, 1], c=self.colours(), s=4, linewidths=0)
            axes.set(title=method, xticks=[], yticks=[])
        for group, colour in self.legend.items():
            fields[-1].scatter([], [], c=colour, s=12, label=_plain(group))
        if self.legend:
            fields[-1].legend(title=_plain(self.color or ""), loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        picture.suptitle(_plain(self.name))
        picture.savefig(path, format="png", dpi=130)

    def html(self, path: str | Path) -> None:
        """Write it as one page that needs no network: a canvas, a legend, and each row's text under the mouse."""
        shown = list(self.legend)
        data = {
            "name": self.name,
            "color": self.color,
            "views": {method: np.round(points, 4).tolist() for method, points in self.views.items()},
            "legend": [[group, self.legend[group]] for group in shown],
            "groups": [shown.index(group) if group in shown else len(shown) - 1 for group in self.groups],
            "texts": self.texts,
        }
        page = files("embeddb.insight").joinpath("map.html").read_text(encoding="utf-8")
        values = {"title": html.escape(self.name), "data": _script_safe(data)}
        Path(path).write_text(re.sub(r"\{\{(\w+)\}\}", lambda mark: values[mark[1]], page), encoding="utf-8")


def map_of(
    bind: Bind,
    embedding: str | AnyEmbedding,
    *,
    color: str | None = None,
    texts: Sequence[str] = (),
    sample: int = MOST,
    seed: int = 0,
) -> Map:
    """Lay out ``sample`` rows by PCA, and by UMAP too (McInnes, Healy, Melville 2018) where umap-learn is installed.

    ``color``: a column of the table, that groups the rows; many numbers or times are shaded from low to high.
    ``texts``: columns that are shown, by default the sources, or the table's columns of text. Reads only. Raises
    QueryError for a column that the table has not.
    """
    if not 3 <= sample <= MOST:
        raise QueryError(f"a map has between 3 and {MOST:,} points, not {sample:,}")
    with connected(bind, "map_of") as connection:
        subject = subject_of(connection, embedding)
        shown = [_column(subject, name) for name in texts] or _texts(subject)
        columns = [*shown, *([_column(subject, color)] if color else [])]
        drawn = draw(connection, subject, sample, columns=columns, seed=seed)
    if len(drawn.vectors) < 3:
        raise QueryError(f"{subject.name} has {len(drawn.vectors)} rows with a vector, too few for a map")
    vectors = unit(drawn.vectors) if subject.metric == "cosine" else drawn.vectors
    values = [row[-1] for row in drawn.values] if color else []
    groups, shades = shaded(values, len(COLOURS)) or ([_said(value) for value in values], None)
    said = tuple(
        " · ".join(_said(value) for value in row[: len(shown)] if value is not None)[:_SHOWN] for row in drawn.values
    )
    return Map(subject.name, drawn.rows, color, _views(vectors, subject.metric, seed), tuple(groups), said, shades)


def plane(vectors: Vectors) -> Points:
    """The two principal components: shape (n, 2). Each axis points to where most of its largest loading is positive."""
    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    # An eigenvector's sign is arbitrary: fixed, so that the same rows give the same map.
    axes = axes * np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0) < 0, -1, 1)
    return np.asarray(centred @ axes, np.float32)


def _views(vectors: Vectors, metric: str, seed: int) -> dict[str, Points]:
    views = {"PCA": plane(vectors)}
    if find_spec("umap") is not None and len(vectors) > 15:
        known = {"cosine": "cosine", "l1": "manhattan"}.get(metric, "euclidean")
        reducer = require("umap", "insight", "a map").UMAP(metric=known, random_state=seed, n_jobs=1)
        views["UMAP"] = np.asarray(reducer.fit_transform(vectors), np.float32)
    return views


def _column(subject: Subject, name: str) -> Any:
    if name not in subject.table.c:
        known = ", ".join(column.key for column in subject.table.c)
        raise QueryError(f"{subject.table.name} has no column {name!r}, only {known}")
    return subject.table.c[name]


def _texts(subject: Subject) -> list[Any]:
    sources = [] if subject.spec is None else [_column(subject, name) for name in subject.spec.sources]
    if sources and not any(isinstance(column.type, LargeBinary) for column in sources):
        return sources
    # Bytes tell a reader nothing, and those of all rows together may be more than memory holds.
    found = [column for column in subject.table.c if isinstance(column.type, String)]
    return found[:2] or list(subject.table.primary_key)


def _said(value: Any) -> str:
    return "NULL" if value is None else str(value)


def _plain(label: str) -> str:
    """Not as TeX, and not too long."""
    return label[:40].replace("$", r"\$")


def _script_safe(data: Any) -> str:
    """JSON that cannot end the script element that it stands in, whatever the rows say."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
