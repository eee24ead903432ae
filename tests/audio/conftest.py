from __future__ import annotations

import pytest

from embeddb.encoders.speaker import DeepSpeaker
from tests.audio.tiny_speaker import save_random


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> DeepSpeaker:
    return save_random(tmp_path_factory.mktemp("speaker"))
