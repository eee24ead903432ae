"""``map_of``: the points are PCA's, and the page is whole in itself, whatever the rows say."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from typer.testing import CliRunner

from embeddb import Vector, embedding_column, register
from embeddb.cli.main import build
from embeddb.errors import QueryError
from embeddb.insight.map import Map, map_of, plane
from embeddb.insight.shades import SHADES, shaded
from tests.insight.conftest import KINDS, Note
from tests.insight.vectors import decaying
from tests.media.senses import Colours

HOSTILE = "</script><img src=x onerror=alert(1)> & \u2028 $x_{ {{data}}"


class Page(HTMLParser):
    """The tags of a page, and the text of its script elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.scripts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and data.strip():
            self.scripts.append(data)


def test_plane_is_pca() -> None:
    vectors = decaying(400, 16)
    expected = PCA(2).fit_transform(vectors)
    found = plane(vectors)
    for axis in range(2):
        assert abs(np.corrcoef(found[:, axis], expected[:, axis])[0, 1]) > 0.9999
        assert found[:, axis].std() == pytest.approx(expected[:, axis].std(), rel=1e-3)
    assert (plane(vectors) == found).all()
    assert plane(np.ones((5, 1), np.float32)).shape == (5, 2)


def test_rows_with_their_groups_and_texts(engine: Engine) -> None:
    found = map_of(engine, "notes.embedding", color="kind", sample=300)
    assert found.views["PCA"].shape == (300, 2)
    assert set(found.groups) == set(KINDS) == set(found.legend)
    assert len(set(found.colours())) == 3
    for group, said in zip(found.groups, found.texts, strict=True):
        assert said.startswith(f"{group} ")  # the title; and the body where there is one
    assert any(said.endswith(" · flying boats land on water") for said in found.texts)
    titles = map_of(engine, Note.embedding, texts=["title"], sample=50)
    assert all(re.fullmatch(r"\S+ \d+", said) for said in titles.texts)
    assert titles.groups == ()


def test_bytes_that_were_embedded_are_neither_read_nor_shown(engine18: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Scan(Base):
        __tablename__ = "scans"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        data: Mapped[bytes]
        embedding: Mapped[Vector | None] = embedding_column("data", encoder=Colours(), index=None)

    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    with Session(engine18) as session, session.begin():
        vectors = np.random.default_rng(0).normal(size=(5, Colours().dim)).astype(np.float32)
        session.add_all(Scan(id=n, name=f"scan {n}", data=b"x", embedding=vector) for n, vector in enumerate(vectors))
    assert sorted(map_of(engine18, Scan.embedding).texts) == [f"scan {n}" for n in range(5)]


def test_what_cannot_be_mapped(engine: Engine) -> None:
    with pytest.raises(QueryError, match="no column 'colour', only id, title"):
        map_of(engine, "notes.embedding", color="colour")
    with pytest.raises(QueryError, match="between 3 and 20,000"):
        map_of(engine, "notes.embedding", sample=50_000)


def test_many_groups_share_grey() -> None:
    groups = tuple(str(n) for n in range(30) for _ in range(30 - n))
    found = Map("m", 1, "c", {"PCA": np.zeros((len(groups), 2), np.float32)}, groups, groups)
    assert len(found.legend) == 10
    assert next(iter(found.legend)) == "0"
    assert found.colours()[-1] == found.legend["others"]


def test_numbers_and_times_are_shaded_from_low_to_high() -> None:
    rng = np.random.default_rng(0)
    values: list[float | None] = [*rng.normal(size=400).tolist(), None]
    groups, legend = shaded(values, 10) or pytest.fail("not shaded")
    assert [*legend.values()] == [*SHADES, "#9498a0"]
    assert groups[-1] == "NULL" == [*legend][-1]
    means = [
        np.mean([value for value, own in zip(values, groups, strict=True) if own == name]) for name in [*legend][:-1]
    ]
    assert means == sorted(means)
    assert all(45 <= groups.count(name) <= 55 for name in [*legend][:-1])
    days = [date(2026, 1, 1) + timedelta(days=day) for day in range(20)]
    assert next(iter((shaded(days, 10) or pytest.fail("not shaded"))[1])) == "2026-01-01 … 2026-01-03"
    same = [0] * 90 + list(range(1, 12))
    assert (shaded(same, 10) or pytest.fail("not shaded"))[0].count("0 … 0") == 90
    for plain in (
        [1, 2, 3],
        [True, False] * 20,
        [{"a": 1}] * 30,
        [*range(30), "a"],
        [*range(30), float("nan")],
    ):
        assert shaded(plain, 10) is None


def test_page_holds_what_rows_say_and_runs_nothing_of_it(tmp_path: Path) -> None:
    points = np.array([[0, 1], [2, 3], [4, 5]], np.float32)
    found = Map(HOSTILE, 3, "c", {"PCA": points}, (HOSTILE, "b", "b"), (HOSTILE, "two", "three"))
    found.html(tmp_path / "map.html")
    found.png(tmp_path / "map.png")
    source = (tmp_path / "map.html").read_text(encoding="utf-8")
    page = Page(source)
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    data = json.loads(page.scripts[0])
    assert data["texts"] == [HOSTILE, "two", "three"]
    assert data["views"] == {"PCA": points.tolist()}
    assert [data["legend"][group][0] for group in data["groups"]] == [HOSTILE, "b", "b"]
    assert not {"src", "href"} & set(page.attributes)
    assert "default-src 'none'" in source
    assert "innerHTML" not in source
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_command(url: str, tmp_path: Path) -> None:
    arguments = [
        "map",
        "notes.embedding",
        "--color",
        "kind",
        "--sample",
        "200",
        "-o",
        str(tmp_path / "a.map"),
        "-u",
        url,
    ]
    result = CliRunner().invoke(build(), arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    assert "200 of 1,200 rows" in " ".join(result.output.split())
    assert len(json.loads(Page((tmp_path / "a.map.html").read_text()).scripts[0])["texts"]) == 200
    assert (tmp_path / "a.map.png").stat().st_size > 5000
