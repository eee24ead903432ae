"""Every kind of encoder from a declaration to an answer: inline and queued, by every metric, migrated, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import embeddb
from embeddb import Audio, Files, Image, Vector, embedding_column, nearest
from embeddb.encoders import Encoder
from tests.encoders.http_stub import serve
from tests.encoders.test_openai import Server
from tests.endtoend.systems import SYSTEMS, TEXTS, Kind, remote
from tests.media.library import png, wav
from tests.migrate.project import differences

COLOURS = ("red", "green", "blue", "white", "yellow", "black")
DISTANCES: dict[str, Any] = {
    "cosine": lambda rows, query: 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query),
    "l2": lambda rows, query: np.linalg.norm(rows - query, axis=1),
    "inner_product": lambda rows, query: -(rows @ query),
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An OpenAI-compatible one."""
    answering = Server()
    with serve(answering.answer) as url:
        yield f"{url}/v1"


def models(encoder: Encoder, kind: Kind, root: Path) -> Any:
    """Two tables, one embedded by the session and one by a worker, each with a column for every metric."""

    class Base(DeclarativeBase):
        pass

    def columns(mode: str) -> dict[str, Any]:
        files = {} if kind == "text" else {"files": Files(root)}
        return {
            metric: embedding_column("source", encoder=encoder, metric=metric, mode=mode, **files)  # type: ignore[arg-type]
            for metric in DISTANCES
        }

    for name in ("inline", "queued"):
        annotations = {"id": Mapped[int], "source": Mapped[str], **dict.fromkeys(DISTANCES, Mapped[Vector | None])}
        members: dict[str, Any] = {"__tablename__": name, "__annotations__": annotations, **columns(name)}
        setattr(Base, name, type(name, (Base,), {**members, "id": mapped_column(primary_key=True)}))
    return Base


def sources(kind: Kind, root: Path) -> tuple[list[str], list[Any]]:
    """What is stored in a row, and the same as it is searched for."""
    root.mkdir()
    if kind == "text":
        return list(TEXTS), list(TEXTS)
    contents = [png(colour) for colour in COLOURS] if kind == "image" else [wav(150.0 * 1.5**n, 0.7) for n in range(6)]
    names = [f"{number}.{'png' if kind == 'image' else 'wav'}" for number in range(6)]
    for name, content in zip(names, contents, strict=True):
        (root / name).write_bytes(content)
    return names, [Image(content) if kind == "image" else Audio(content) for content in contents]


@pytest.mark.parametrize("name", [*SYSTEMS, "OpenAI"])
def test_end_to_end(engine18: Engine, tmp_path: Path, name: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a worker may call to make a network of the application's.
    monkeypatch.setenv("EMBEDDB_ALLOW_FACTORIES", "tests.encoders.modules,tests.endtoend.systems")
    system = remote(server) if name == "OpenAI" else SYSTEMS[name]
    (tmp_path / "model").mkdir()
    encoder = system.make(tmp_path / "model")
    stored, asked = sources(system.kind, tmp_path / "files")
    base = models(encoder, system.kind, tmp_path / "files")
    base.metadata.create_all(engine18)
    embeddb.register(engine18, base, install=True)
    factory = sessionmaker(engine18)
    embeddb.install(factory)
    rows = [{"id": number, "source": source} for number, source in enumerate(stored)]
    with factory.begin() as session:
        session.add_all(base.inline(**row) for row in rows)
    with engine18.begin() as connection:  # by anyone: no hook sees it
        connection.execute(insert(base.queued.__table__), rows)
    # The worker makes the encoder of what the catalog says, as one on another host would.
    totals = embeddb.drain(engine18)
    assert (totals.embedded, totals.failed) == (3 * len(rows), 0)
    with factory() as session:
        vectors = vectors_of(session, base.inline)
        for metric, other in vectors_of(session, base.queued).items():
            np.testing.assert_allclose(other, vectors["cosine"], atol=1e-5)
            np.testing.assert_allclose(vectors[metric], vectors["cosine"], atol=1e-5)
        assert len(np.unique(np.round(vectors["cosine"], 4), axis=0)) > 1, "rows differ"
        for metric, distance in DISTANCES.items():
            for table in (base.inline, base.queued):
                check_search(session, getattr(table, metric), asked[2], vectors[metric], distance)
    with engine18.connect() as connection:
        coverage = connection.execute(
            text("SELECT embedding, rows, embedded, pending, dim FROM embeddb.coverage")
        ).all()
        assert len(coverage) == 6
        assert {tuple(row[1:]) for row in coverage} == {(6, 6, 0, encoder.dim)}
    assert differences(engine18, base.metadata) == []


def vectors_of(session: Session, table: Any) -> dict[str, Any]:
    found = session.execute(select(*(getattr(table, metric) for metric in DISTANCES)).order_by(table.id)).all()
    return {metric: np.array([row[place] for row in found]) for place, metric in enumerate(DISTANCES)}


def check_search(session: Session, column: Any, query: Any, rows: Any, distance: Any) -> None:
    """By what a user has at hand, and by a row's vector against NumPy."""
    found = session.execute(nearest(column, query, distance=True).limit(6)).all()
    assert len(found) == 6
    by_vector = session.execute(nearest(column, rows[2], distance=True).limit(6)).all()
    expected = distance(rows.astype(np.float64), rows[2].astype(np.float64))
    for row in by_vector:
        assert row.distance == pytest.approx(expected[row[0].id], abs=1e-4)
    assert [row.distance for row in by_vector] == pytest.approx(sorted(expected), abs=1e-4)
