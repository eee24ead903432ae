from __future__ import annotations

from pathlib import Path

import pytest

from embeddb.encoders import clear_query_cache
from tests.encoders import tiny_models


@pytest.fixture(autouse=True)
def _no_queries_kept() -> None:
    clear_query_cache()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: ``bert`` (bare), ``mean``, ``wide`` and ``prompted``."""
    pytest.importorskip("sentence_transformers", reason="needs the extra embeddb[text]")
    folder = tmp_path_factory.mktemp("models")
    tiny_models.save_bert(folder / "bert")
    tiny_models.save_sentence_bert(folder / "mean", folder / "bert")
    tiny_models.save_sentence_bert(folder / "wide", folder / "bert", pooling=("cls", "max", "mean"), dense=24)
    prompts = {"query": "query : ", "passage": "passage : ", "other": "the cat "}
    tiny_models.save_sentence_bert(folder / "prompted", folder / "bert", prompts=prompts)
    return folder
