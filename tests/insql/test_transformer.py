"""A transformer in SQL gives what sentence-transformers gives."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from embeddb.encoders import SentenceTransformer
from embeddb.encoders.protocol import Vectors
from embeddb.errors import CatalogError, EncoderError
from embeddb.insql import install_transformer, installed, remove_transformer
from tests.insql.conftest import InSQL
from tests.insql.small_models import TEXTS, Models


def in_sql(insql: InSQL, name: str, texts: Any, role: str = "query") -> Vectors:
    """The vectors that SQL makes of the texts."""
    rows = insql.db.execute(
        f"SELECT embeddb.transformer_embed(t, x, t.{role}_prompt)::text FROM embeddb.transformer t,"
        " unnest(%s::text[]) WITH ORDINALITY AS x (x, place) WHERE t.name = %s ORDER BY x.place",
        [list(texts), name],
    ).fetchall()
    return np.array([json.loads(vector) for (vector,) in rows], np.float32)


def test_minilm_is_exact(insql: InSQL, questions: list[str]) -> None:
    """Real questions, and texts so long that they go in many blocks, or are cut."""
    texts = [*questions[:25], "", " ".join(questions[:4]), " ".join(questions[:30])]
    assert np.abs(in_sql(insql, "minilm", texts) - insql.encoder.encode_queries(texts)).max() < 2e-6


def test_half_precision_keeps_the_direction(insql18: InSQL, questions: list[str]) -> None:
    other = SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True, device="cpu", batch_size=31)
    with insql18.engine.begin() as connection:
        made = install_transformer(connection, other, half=True, name="halved")
        whole = next(one for one in installed(connection) if one.name == "minilm")
    found, expected = in_sql(insql18, "halved", questions[:25]), other.encode_queries(questions[:25])
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.99999
    assert (made.half, whole.half) == (True, False)
    assert made.size < 50e6 < 0.55 * whole.size
    with insql18.engine.begin() as connection:
        remove_transformer(connection, "halved")
        assert connection.scalar(text("SELECT count(DISTINCT encoder) FROM embeddb.transformer_token")) == 1


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {}),
        ("bert", {"pooling": "cls", "normalize": False}),
        ("bert", {"pooling": "max", "hidden_act": "gelu_new"}),
        ("bert", {"hidden_act": "relu", "layer_norm_eps": 1e-2}),
        ("bert", {"intermediate_size": 4500}),
        ("bert", {"normalize": False, "settings": {"truncate_dim": 20, "normalize": False}}),
        ("bert", {"settings": {"truncate_dim": 20}, "prompts": {"query": "the cat: ", "document": "a dog "}}),
        ("distilbert", {"pooling": "cls"}),
        ("roberta", {}),
        ("mpnet", {}),
        ("mpnet", {"pooling": "cls", "normalize": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()) or "default",
)
@pytest.mark.filterwarnings("ignore:.*trained to be cut short:UserWarning")
@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
def test_every_family(insql18: InSQL, models: Models, family: str, changes: dict[str, Any], half: bool) -> None:
    encoder = models.encoder(family, **changes)
    with insql18.engine.begin() as connection:
        install_transformer(connection, encoder, name="tiny", half=half)
    for role, expected in (
        ("query", encoder.encode_queries(TEXTS)),
        ("document", encoder.encode_documents(TEXTS)),
    ):
        found = in_sql(insql18, "tiny", TEXTS, role)
        assert found.shape == expected.shape
        if half:
            cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
            assert cosines.min() > 0.9999
        else:
            assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    with insql18.engine.begin() as connection:
        remove_transformer(connection, "tiny")


def test_the_polynomial_for_old_servers_is_the_error_function(insql16: InSQL) -> None:
    [(expression,)] = insql16.db.execute("SELECT embeddb.erfc_sql('x', false)").fetchall()
    rows = insql16.db.execute(
        f"SELECT {expression} - erfc(x) FROM (SELECT n / 71::float8 AS x FROM generate_series(-2000, 2000) AS n) x"
    )
    assert max(abs(difference) for (difference,) in rows) < 2e-7


def test_what_has_no_sql_is_refused_and_leaves_nothing(insql18: InSQL, models: Models) -> None:
    for encoder, message in (
        (models.encoder("bert", pooling="lasttoken"), "pooling by 'lasttoken' has no SQL"),
        (models.encoder("bert", hidden_act="silu"), "activation 'silu' has no SQL"),
    ):
        with pytest.raises(EncoderError, match=message), insql18.engine.begin() as connection:
            install_transformer(connection, encoder)
    assert insql18.db.execute("SELECT name FROM embeddb.transformer").fetchall() == [("minilm",)]


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_padding_within_a_text_is_refused(insql18: InSQL, models: Models, family: str) -> None:
    """It takes no position in these families."""
    with insql18.engine.connect() as connection:
        install_transformer(connection, models.encoder(family), name="tiny")
        embed = text(
            "SELECT embeddb.transformer_embed(t, 'a <pad> cat', '') FROM embeddb.transformer t WHERE name = 'tiny'"
        )
        with pytest.raises(DBAPIError, match="'<pad>' in it stands for no text to the model"):
            connection.execute(embed)


def test_models_stand_side_by_side_under_names_of_their_own(insql18: InSQL, models: Models) -> None:
    first, second = models.encoder("bert"), models.encoder("mpnet")
    with insql18.engine.begin() as connection:
        install_transformer(connection, first, name="one")
        with pytest.raises(CatalogError, match="another transformer here is called 'one'"):
            install_transformer(connection, second, name="one")
        install_transformer(connection, second, name="two")
        install_transformer(connection, first, name="one")
    assert np.abs(in_sql(insql18, "one", TEXTS) - first.encode_queries(TEXTS)).max() < 1e-5
    assert np.abs(in_sql(insql18, "two", TEXTS) - second.encode_queries(TEXTS)).max() < 1e-5
    with insql18.engine.begin() as connection:
        assert {"one", "two"} < {one.name for one in installed(connection)}
        remove_transformer(connection, "one")
        remove_transformer(connection, "two")
        with pytest.raises(CatalogError, match="no transformer here is called 'one'; there are: minilm"):
            remove_transformer(connection, "one")
