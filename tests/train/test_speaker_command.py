"""``embeddb train speaker``, from rows and from a folder; how well it learns is measured in tests/audio."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from embeddb import Files, SourceError
from embeddb.catalog.install import install
from embeddb.encoders.speaker import DeepSpeaker
from embeddb.train.sounds import sounds

soundfile = pytest.importorskip("soundfile", reason="needs the extra embeddb[audio]")
pytest.importorskip("torch", reason="needs the extra embeddb[audio]")
typer_testing = pytest.importorskip("typer.testing", reason="needs the extra embeddb[cli]")


def flac(pitch: float, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    wave = 0.3 * np.sin(pitch * np.arange(6_000) / 16_000) + 0.05 * rng.standard_normal(6_000)
    out = io.BytesIO()
    soundfile.write(out, wave, 16_000, format="FLAC")
    return out.getvalue()


@pytest.fixture
def takes(engine18: Engine, tmp_path: Path) -> Engine:
    """Four takes of three people, as files and as bytes; one file is damaged, and one take is nobody's."""
    with engine18.begin() as connection:
        install(connection)
        connection.execute(text("CREATE TABLE takes (id int PRIMARY KEY, path text, data bytea, speaker text)"))
        for number in range(12):
            name = ("ann", "bob", "eve")[number % 3]
            data = flac((900, 2_000, 5_000)[number % 3], number)
            place = tmp_path / "takes" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.flac").write_bytes(data)
            values = {"id": 99 - number, "path": f"{name}/{number}.flac", "data": data, "speaker": name}
            connection.execute(text("INSERT INTO takes VALUES (:id, :path, :data, :speaker)"), values)
        connection.execute(text("INSERT INTO takes VALUES (1, 'damaged.flac', NULL, 'ann'), (2, NULL, NULL, 'bob')"))
        connection.execute(text("INSERT INTO takes VALUES (3, 'ann/0.flac', NULL, NULL)"))
    (tmp_path / "takes" / "damaged.flac").write_bytes(b"nothing")
    return engine18


def test_rows_in_the_order_of_their_key(takes: Engine, tmp_path: Path) -> None:
    left_out: list[str] = []
    with takes.connect() as connection:
        of_files = sounds(
            connection, "takes.path", "speaker", Files(tmp_path / "takes"), skipped=lambda e: left_out.append(str(e))
        )
        named = [(sound.seconds, name) for sound, name in of_files]
        assert named == [(0.375, name) for name in ("eve", "bob", "ann") * 4]
        assert [error.partition(":")[0] for error in left_out] == ["damaged.flac"]
        assert [name for _, name in sounds(connection, "takes.data", "speaker")] == [name for _, name in named]
        connection.execute(text("UPDATE takes SET data = 'junk' WHERE id = 99"))
        with pytest.raises(SourceError, match="^row 99: its bytes: it does not decode"):
            list(sounds(connection, "takes.data", "speaker"))
        for source, label, said in (
            ("takes.path", "speaker", "takes.path holds names of files: say where .* --root"),
            (
                "takes.id",
                "speaker",
                "takes.id is of type INTEGER.*: give a column of names of files, or of their bytes",
            ),
            ("takes.path", "who", "takes.path: 'takes' has no column 'who', only id, path, data, speaker"),
            ("takes", "who", "neither table.column nor"),
        ):
            with pytest.raises(SourceError, match=said):
                list(sounds(connection, source, label))


def test_the_command(takes: Engine, tmp_path: Path) -> None:
    from embeddb.cli.main import build

    short = ["--steps", "3", "--triplets", "1", "--batch", "4"]
    url = takes.url.render_as_string(hide_password=False)
    of_rows = ["takes.path", "-o", str(tmp_path / "rows"), "--root", str(tmp_path / "takes"), "-u", url, *short]
    result = typer_testing.CliRunner().invoke(build(), ["train", "speaker", *of_rows], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    assert "left out: damaged.flac: it does not decode" in result.output
    assert "registered in the catalog" in result.output
    with takes.connect() as connection:
        [(config, dim, fingerprint)] = connection.execute(text("SELECT config, dim, fingerprint FROM embeddb.encoder"))
    encoder = DeepSpeaker(str(tmp_path / "rows"))
    assert (config, dim, fingerprint) == (dict(encoder.config), encoder.dim, encoder.fingerprint)

    (tmp_path / "takes" / "damaged.flac").rename(tmp_path / "takes" / "ann" / "damaged.flac")
    of_folder = [str(tmp_path / "takes"), "-o", str(tmp_path / "folder"), *short, "--words"]
    result = typer_testing.CliRunner().invoke(build(), ["train", "speaker", *of_folder])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "left out: ann/damaged.flac: it does not decode" in result.output
    assert DeepSpeaker(str(tmp_path / "folder")).dim == 128
    result = typer_testing.CliRunner().invoke(build(), ["train", "speaker", "no/such", "-o", str(tmp_path / "none")])
    assert "there is no folder no/such" in result.output
