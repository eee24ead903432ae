from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.library import write_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of pictures and recordings."""
    pytest.importorskip("PIL.Image", reason="needs the extra embeddb[image]")
    pytest.importorskip("soundfile", reason="needs the extra embeddb[audio]")
    pytest.importorskip("scipy", reason="needs the extra embeddb[audio]")
    folder = tmp_path / "root"
    folder.mkdir()
    write_files(folder)
    return folder
