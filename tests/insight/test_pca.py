"""``fit_pca`` and ``Reduced``: the best projection, written down, made again from JSON, followed by queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
from sqlalchemy import Engine, insert, select
from typer.testing import CliRunner

from embeddb.cli.main import build
from embeddb.encoders import Hashing, Reduced, embed_documents, embed_query, from_config
from embeddb.encoders.reduced import Projection, write
from embeddb.errors import EncoderError, QueryError
from embeddb.insight.pca import Moments, fit_pca
from embeddb.insight.statistics import neighbours
from tests.insight.conftest import DIM, ROWS, Note, Word, vectors
from tests.insight.vectors import Vectors, decaying


def moments(rows: Vectors) -> Moments:
    found = Moments(rows.shape[1])
    for start in range(0, len(rows), 97):
        found.add(rows[start : start + 97])
    return found


def test_components_are_those_of_scikit_learn() -> None:
    rows = decaying(600, 24) + np.float32(0.7)
    centred, share = moments(rows).projection(6, centred=True)
    expected = PCA(6).fit(rows)
    np.testing.assert_allclose(centred.mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(centred.components * expected.components_, axis=1)), 1, atol=1e-4)
    assert share == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-5)
    about_origin, _ = moments(rows).projection(6, centred=False)
    truncated = TruncatedSVD(6, algorithm="arpack").fit(rows.astype(np.float64))
    assert not about_origin.mean.any()
    np.testing.assert_allclose(np.abs(np.sum(about_origin.components * truncated.components_, axis=1)), 1, atol=1e-4)


def test_of_a_table(engine: Engine, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fitted = fit_pca(engine, "notes.embedding", 12, tmp_path, progress=lambda *step: seen.append(step))
    assert (fitted.rows, fitted.dim) == (ROWS, 12)
    assert seen == [(1000, ROWS), (ROWS, ROWS)]
    assert fitted.kept > 0.95
    assert fitted.encoder is not None
    texts = ["flying boats", "boat 7", "bread"]
    whole = Hashing(dim=DIM).encode_documents(texts)
    made = embed_documents(fitted.encoder, texts)
    assert made.shape == (3, 12)
    rows = vectors()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(unit.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(made @ made.T, (whole @ axes[:12].T) @ (whole @ axes[:12].T).T, atol=1e-4)
    np.testing.assert_allclose(embed_query(fitted.encoder, "boat 7"), made[1], atol=1e-6)


def test_it_keeps_more_neighbours_than_a_prefix() -> None:
    rows = decaying(1500, 64)
    projection, _ = moments(rows).projection(16, centred=False)
    queries = np.arange(100)
    truth = neighbours(rows, 10, "cosine", queries=queries)

    def kept(less: Vectors) -> float:
        found = neighbours(less, 10, "cosine", queries=queries)
        return sum(len(np.intersect1d(*pair)) for pair in zip(truth, found, strict=True)) / truth.size

    assert kept(rows @ projection.components.T) > 0.85 > 0.6 > kept(rows[:, :16])


def test_all_components_only_turn(engine: Engine, tmp_path: Path) -> None:
    """Distances stay, and the first dimensions say more than they did."""
    turned = fit_pca(engine, "notes.embedding", DIM, tmp_path).encoder
    assert turned is not None
    rows = vectors()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projected = turned.project(rows)
    np.testing.assert_allclose(projected @ projected.T, rows @ rows.T, atol=1e-5)
    squares, before = (np.square(some).mean(axis=0) for some in (projected, rows))
    assert (np.diff(squares) < 1e-6).all()
    assert squares[:8].sum() > 0.9 > 0.6 > before[:8].sum()


def test_it_comes_back_from_json_and_its_fingerprint_tells_both_parts(tmp_path: Path) -> None:
    projection, _ = moments(decaying(100, 16)).projection(4, centred=False)
    other, _ = moments(decaying(100, 16, seed=1)).projection(4, centred=False)
    for folder, written in (("a", projection), ("b", other), ("same", projection)):
        write(tmp_path / folder, written, {})
    encoder = Reduced(Hashing(dim=16), str(tmp_path / "a"))
    again = from_config(json.loads(json.dumps(dict(encoder.config))))
    assert again == encoder
    assert hash(again) == hash(encoder)
    assert again.fingerprint == encoder.fingerprint == Reduced(Hashing(dim=16), str(tmp_path / "same")).fingerprint
    assert encoder.fingerprint != Reduced(Hashing(dim=16), str(tmp_path / "b")).fingerprint
    assert encoder.fingerprint != Reduced(Hashing(dim=17), str(tmp_path / "a")).fingerprint
    assert (encoder.dim, encoder.modality) == (4, "text")
    assert np.isnan(embed_documents(encoder, ["boat", "!"])[1]).all()
    with pytest.raises(EncoderError, match="makes 17 dimensions"):
        Reduced(Hashing(dim=17), str(tmp_path / "a")).encode_documents(["boat"])


def test_what_is_orthogonal_to_all_components_has_no_embedding(tmp_path: Path) -> None:
    axis = np.zeros((1, 16), np.float32)
    whole = Hashing(dim=16).encode_documents(["boat"])[0]
    axis[0, int(np.flatnonzero(whole == 0)[0])] = 1
    write(tmp_path, Projection(np.zeros(16, np.float32), axis), {})
    assert np.isnan(embed_documents(Reduced(Hashing(dim=16), str(tmp_path)), ["boat"])).all()


def test_fitted_to_another_encoder(tmp_path: Path) -> None:
    projection, _ = moments(decaying(100, 16)).projection(4, centred=False)
    write(tmp_path, projection, {"fingerprint": "another"})
    with pytest.raises(EncoderError, match="another encoder than Hashing"):
        Reduced(Hashing(dim=16), str(tmp_path)).encode_queries(["boat"])


def test_what_cannot_be_fitted(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="has 32 dimensions: keep between 1 and all of them, not 33"):
        fit_pca(engine, "notes.embedding", DIM + 1, tmp_path)
    with engine.begin() as connection:
        connection.execute(insert(Word), [{"word": "boat", "embedding": np.ones(256)}])
        with pytest.raises(QueryError, match="1 rows with a vector, too few for 8"):
            fit_pca(connection, Word.embedding, 8, tmp_path)
        connection.rollback()


def test_command(engine: Engine, url: str, tmp_path: Path) -> None:
    arguments = ["fit-pca", "notes.embedding", "--dim", "8", "-o", str(tmp_path / "pca"), "-u", url]
    result = CliRunner().invoke(build(), arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    encoder = from_config(json.loads(result.stdout))
    assert encoder == Reduced(Hashing(dim=DIM), str(tmp_path / "pca"))
    with engine.connect() as connection:
        stored = np.array(connection.scalars(select(Note.embedding).limit(5)).all(), np.float32)
    # What is stored can be projected without the model, too.
    assert isinstance(encoder, Reduced)
    assert encoder.project(stored).shape == (5, 8)
