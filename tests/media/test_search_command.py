"""``embeddb search --file``: the rows whose pictures or sounds are like a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Vector, embedding_column, register
from embeddb.worker import drain
from tests.media.library import COLOURS, PITCHES, png, wav
from tests.media.senses import Colours, Pitches

typer_testing = pytest.importorskip("typer.testing", reason="needs the extra embeddb[cli]")


class Base(DeclarativeBase):
    pass


class Scan(Base):
    __tablename__ = "scans"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]
    embedding: Mapped[Vector | None] = embedding_column("data", encoder=Colours(), index=None)


class Take(Base):
    __tablename__ = "takes"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]
    embedding: Mapped[Vector | None] = embedding_column("data", encoder=Pitches(), index=None)


def test_rows_like_a_file(engine18: Engine, root: Path) -> None:
    from embeddb.cli.main import build

    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    with Session(engine18) as session, session.begin():
        session.add_all(Scan(id=n, data=png(colour)) for n, colour in enumerate(COLOURS))
        session.add_all(Take(id=n, data=wav(pitch)) for n, pitch in enumerate(PITCHES))
    drain(engine18, Base)

    def search(name: str, file: str) -> Any:
        url = engine18.url.render_as_string(hide_password=False)
        arguments = ["search", f"{__name__}:{name}.embedding", file, "--file", "--json", "-n", "1", "-u", url]
        return typer_testing.CliRunner().invoke(build(), arguments)

    for name, file, found in (
        ("Scan", f"{COLOURS[1]}.png", 1),
        ("Take", f"{PITCHES[2]}.wav", 2),
    ):
        result = search(name, str(root / file))
        assert result.exit_code == 0, (result.output, result.exception)
        row = json.loads(result.output)
        assert row.keys() == {"id", "score"}  # neither vectors nor bytes
        assert row["id"] == found
    assert "there is no file" in search("Scan", str(root / "absent.png")).output
